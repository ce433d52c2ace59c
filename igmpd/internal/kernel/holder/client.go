package holder

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// answerWithin is how long the holder may take; it answers from memory or with one system call.
const answerWithin = 5 * time.Second

// Client asks a holder. Its methods may be called from several goroutines.
type Client struct {
	path string
	mu   sync.Mutex
	conn *net.UnixConn
}

// Dial connects to the holder behind a unix socket.
func Dial(path string) (*Client, error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("no holder at %s (start `igmpd holder --socket %s`, or set holder = \"\"): %w", path, path, err)
	}
	return &Client{path: path, conn: conn}, nil
}

// Close ends the connection. The tables stay.
func (c *Client) Close() error { return c.conn.Close() }

// Open returns a duplicate of the table's socket, which the holder initialises first where it does not have it.
func (c *Client) Open(table uint32) (*os.File, error) {
	_, fd, err := c.ask(request{opOpen, table}, nil)
	if err != nil {
		return nil, err
	}
	if fd < 0 {
		return nil, fmt.Errorf("holder at %s: %w: no descriptor came", c.path, errNotOurs)
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("mroute table %d", table)), nil
}

// Release lets the holder close its copy of the table's socket. The table goes with the last copy.
func (c *Client) Release(table uint32) error {
	_, _, err := c.ask(request{opRelease, table}, nil)
	return err
}

// Give lets a holder that does not have the table hold it by a duplicate of f: one that was started after the last one died.
func (c *Client) Give(table uint32, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var asked error
	err = raw.Control(func(fd uintptr) { _, _, asked = c.ask(request{opGive, table}, unix.UnixRights(int(fd))) })
	return errors.Join(err, asked)
}

// List returns the tables that the holder has, ascending.
func (c *Client) List() ([]uint32, error) {
	var all []uint32
	for from := uint32(0); ; {
		r, _, err := c.ask(request{opList, from}, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, r.tables...)
		if len(r.tables) < listMax {
			return all, nil
		}
		last := r.tables[len(r.tables)-1]
		if last < from || last == ^uint32(0) {
			return nil, fmt.Errorf("holder at %s: %w: a list that does not ascend", c.path, errNotOurs)
		}
		from = last + 1
	}
}

// ask sends a request, with rights beside it, and returns the answer and the descriptor beside that, -1 where there is none.
func (c *Client) ask(r request, rights []byte) (reply, int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer, fd, err := c.exchange(r, rights)
	if err == nil && answer.failed != "" {
		err = errors.New(answer.failed)
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return reply{}, -1, fmt.Errorf("holder at %s: %w", c.path, err)
	}
	return answer, fd, nil
}

func (c *Client) exchange(r request, given []byte) (reply, int, error) {
	if err := c.conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return reply{}, -1, err
	}
	if _, _, err := c.conn.WriteMsgUnix(r.marshal(), given, nil); err != nil {
		return reply{}, -1, err
	}
	body, rights := make([]byte, replyMax+1), make([]byte, unix.CmsgSpace(4))
	n, oob, _, _, err := c.conn.ReadMsgUnix(body, rights)
	if err != nil {
		return reply{}, -1, err
	}
	fd, err := descriptor(rights[:oob])
	if err != nil {
		return reply{}, -1, err
	}
	answer, err := parseReply(body[:n])
	return answer, fd, err
}

// descriptor takes the one descriptor out of a control message, -1 where there is none.
func descriptor(oob []byte) (int, error) {
	if len(oob) == 0 {
		return -1, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return -1, errNotOurs
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return -1, errNotOurs
	}
	unix.CloseOnExec(fds[0])
	return fds[0], nil
}
