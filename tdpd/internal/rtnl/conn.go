// Package rtnl speaks rtnetlink about routes: of IP, with and without labels to push, and of labels; and about rules. It exists beside
// vishvananda/netlink, which has these routes, too, for three things that one has not: many requests in one system call, dumps and
// notifications that the kernel filters by protocol and that no foreign route can break, and notice of what was lost.
package rtnl

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Conn is a socket for requests; it is used by one goroutine at a time. It stays in the network namespace in which it was opened.
type Conn struct {
	fd   int
	port uint32
	seq  uint32
	buf  []byte
}

const (
	bufferSize = 1 << 16
	// A batch is small enough for the answers, were they all errors, to fit into the socket's buffer.
	batchBytes = 1 << 15
	batchMost  = 128
)

// Dial opens a socket.
func Dial() (*Conn, error) {
	fd, port, err := open(0)
	if err != nil {
		return nil, err
	}
	c := &Conn{fd: fd, port: port, buf: make([]byte, bufferSize)}
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1) // older kernels say and filter less
	}
	return c, nil
}

func open(flags int) (fd int, port uint32, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, 0, fmt.Errorf("netlink socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	var name unix.Sockaddr
	if err == nil {
		name, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, fmt.Errorf("netlink socket: %w", err)
	}
	if n, ok := name.(*unix.SockaddrNetlink); ok {
		port = n.Pid
	}
	return fd, port, nil
}

// Port is the socket's address, which notifications of what it changed bear.
func (c *Conn) Port() uint32 { return c.port }

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Request is one change.
type Request struct {
	Type  uint16 // RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWRULE or RTM_DELRULE
	Flags uint16 // NLM_F_CREATE, ...
	Route Route
	Rule  Rule // in place of Route, of the last two
}

// append appends what follows the netlink header.
func (r *Request) append(b []byte) []byte {
	if r.Type == unix.RTM_NEWRULE || r.Type == unix.RTM_DELRULE {
		return r.Rule.append(b)
	}
	return r.Route.append(b, r.Type == unix.RTM_DELROUTE)
}

// Do carries the requests out in their order, whether others fail or not. failed has the kernel's answer to those that did, by
// index. With err, what became of requests that are not in failed is not known.
func (c *Conn) Do(requests []Request) (failed map[int]error, err error) {
	failed = map[int]error{}
	batch := make([]byte, 0, 2*batchBytes)
	for next := 0; next < len(requests); {
		first, base := next, c.seq+1
		batch = batch[:0]
		for ; next < len(requests) && next-first < batchMost && len(batch) < batchBytes; next++ {
			r := &requests[next]
			c.seq++
			flags := r.Flags | unix.NLM_F_REQUEST
			last := len(batch)
			batch = appendMessage(batch, r.Type, flags, c.seq, r.append)
			if next+1 == len(requests) || next+1-first == batchMost || len(batch) >= batchBytes {
				native.PutUint16(batch[last+6:], flags|unix.NLM_F_ACK) // it ends the batch's answers
			}
		}
		if err := c.send(batch); err != nil {
			return failed, err
		}
		if err := c.answers(base, c.seq, func(seq uint32, err error) { failed[first+int(seq-base)] = err }); err != nil {
			return failed, err
		}
	}
	return failed, nil
}

func (c *Conn) send(b []byte) error {
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink: send: %w", err)
	}
	return nil
}

func (c *Conn) receive() ([]byte, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if err == nil {
			return c.buf[:n], nil
		}
		if err != unix.EINTR {
			return nil, fmt.Errorf("netlink: receive: %w", err)
		}
	}
}

// answers reads until the answer to the request numbered last.
func (c *Conn) answers(first, last uint32, failed func(seq uint32, err error)) error {
	for done := false; !done; {
		b, err := c.receive()
		if err != nil {
			return err
		}
		err = messages(b, func(m Message) error {
			if m.Type != unix.NLMSG_ERROR || m.Seq-first > last-first {
				return nil // of a batch that was given up
			}
			done = done || m.Seq == last
			answer, err := parseAnswer(m)
			if answer != nil {
				failed(m.Seq, answer)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Error is the kernel's refusal of a request.
type Error struct {
	Errno unix.Errno
	Text  string // the kernel's own words; often empty
}

// Error gives the kernel's words where there are any.
func (e *Error) Error() string {
	if e.Text == "" {
		return e.Errno.Error()
	}
	return fmt.Sprintf("%s (%s)", e.Errno.Error(), e.Text)
}

// Unwrap returns the number.
func (e *Error) Unwrap() error { return e.Errno }

// parseAnswer returns nil for an acknowledgement.
func parseAnswer(m Message) (answer error, err error) {
	if len(m.Data) < 4 {
		return nil, errShort
	}
	number := int32(native.Uint32(m.Data))
	if number == 0 {
		return nil, nil
	}
	e := &Error{Errno: unix.Errno(-number)}
	const begin = 4 + unix.NLMSG_HDRLEN // the request's header is repeated
	if m.Flags&unix.NLM_F_ACK_TLVS == 0 || m.Flags&unix.NLM_F_CAPPED == 0 || len(m.Data) < begin {
		return e, nil
	}
	return e, attributes(m.Data[begin:], func(typ uint16, v []byte) error {
		if typ == unix.NLMSGERR_ATTR_MSG && len(v) > 0 {
			e.Text = string(v[:len(v)-1])
		}
		return nil
	})
}

// Dump calls do with the routes of a family in the main table, those of one protocol, or with protocol 0 of all. A route
// that cannot be read is passed over if it is of another protocol. Where the kernel changes much meanwhile, do may see one twice.
func (c *Conn) Dump(family, protocol uint8, do func(Route)) error {
	return c.routes(family, unix.RT_TABLE_MAIN, protocol, func(r Route) {
		if r.Table == unix.RT_TABLE_MAIN {
			do(r)
		}
	})
}

// DumpTables is Dump of a protocol's routes in all tables.
func (c *Conn) DumpTables(family, protocol uint8, do func(Route)) error {
	return c.routes(family, unix.RT_TABLE_UNSPEC, protocol, do)
}

// routes passes on routes that were asked for: not every kernel filters.
func (c *Conn) routes(family, table, protocol uint8, do func(Route)) error {
	request := []byte{family, 0, 0, 0, table, protocol, 0, 0, 0, 0, 0, 0}
	err := c.dump(unix.RTM_GETROUTE, request, unix.RTM_NEWROUTE, func(data []byte) {
		r, err := ParseRoute(data)
		if err == nil && data[0] == family && (protocol == 0 || r.Protocol == protocol) {
			do(r)
		}
	})
	if err != nil && !errors.Is(err, ErrInterrupted) {
		return fmt.Errorf("netlink: read routes: %w", err)
	}
	return err
}

// dump asks for all there is, and calls do with the data of messages of a type.
func (c *Conn) dump(get uint16, request []byte, typ uint16, do func(data []byte)) error {
	c.seq++
	err := c.send(appendMessage(nil, get, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, c.seq, func(b []byte) []byte { return append(b, request...) }))
	if err != nil {
		return err
	}
	interrupted := false
	for done := false; !done; {
		b, err := c.receive()
		if err != nil {
			return err
		}
		err = messages(b, func(m Message) error {
			if m.Seq != c.seq {
				return nil
			}
			interrupted = interrupted || m.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				done = true
				return dumpEnd(m)
			case typ:
				do(m.Data)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if interrupted {
		return ErrInterrupted
	}
	return nil
}

// ErrInterrupted says that routes or rules changed during a dump, which may lack some: repeat it.
var ErrInterrupted = errors.New("netlink: the routes changed while they were read")

// dumpEnd returns how a dump ended. That there is no such table, or no such family, is the end of an empty one.
func dumpEnd(m Message) error {
	if len(m.Data) < 4 {
		return nil
	}
	switch e := unix.Errno(-int32(native.Uint32(m.Data))); e {
	case 0, unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT:
		return nil
	default:
		return e
	}
}
