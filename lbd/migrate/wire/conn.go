package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Network is the network of the sockets, as package net names it.
const Network = "unixpacket"

// Conn is one end of a link. One goroutine may receive while others send, one at a time.
type Conn struct {
	unix    *net.UnixConn
	decoder Decoder
	begun   int // descriptor of the message of which parts are missing; -1: none

	packet [MaxPacket + 1]byte // one more, so that an overlong packet shows
	rights [64]byte            // room for more descriptors than the one that is right, so that these can be closed
}

// NewConn makes a link of a connected socket.
func NewConn(c *net.UnixConn) *Conn { return &Conn{unix: c, begun: -1} }

// Dial connects to the agent that listens at path.
func Dial(path string) (*Conn, error) {
	c, err := net.DialUnix(Network, nil, &net.UnixAddr{Name: path, Net: Network})
	if err != nil {
		return nil, err
	}
	return NewConn(c), nil
}

// Send sends a message, with the descriptor fd where that is not negative. The descriptor stays the caller's.
func (c *Conn) Send(m Message, fd int) error {
	packets, err := Encode(m)
	if err != nil {
		return err
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	for _, p := range packets {
		if _, _, err := c.unix.WriteMsgUnix(p, rights, nil); err != nil {
			return fmt.Errorf("send %v: %w", m.Type, err)
		}
		rights = nil
	}
	return nil
}

// Receive waits for a message of a known type. The descriptor that came with it is the caller's to close, -1 where none came or where it got
// lost for want of room in the process's table; surplus ones are closed. io.EOF is the end of the link. After ErrMalformed more may be
// received, to hear how what was begun ends.
func (c *Conn) Receive() (Message, int, error) {
	for {
		n, fd, err := c.receivePacket()
		if err != nil {
			c.forget()
			return Message{}, -1, err
		}
		if n > MaxPacket {
			closeAll(fd)
			c.forget()
			return Message{}, -1, fmt.Errorf("%w: a packet of more than %d bytes", ErrMalformed, MaxPacket)
		}
		m, whole, err := c.decoder.Next(c.packet[:n])
		switch {
		case errors.Is(err, ErrType):
			closeAll(fd)
		case err != nil:
			closeAll(fd)
			c.forget()
			return Message{}, -1, err
		case c.begun >= 0: // it came with the first part
			closeAll(fd)
			if whole {
				fd, c.begun = c.begun, -1
				return m, fd, nil
			}
		case whole && m.Type.hasState():
			return m, fd, nil
		case whole:
			closeAll(fd)
			return m, -1, nil
		default:
			c.begun = fd
		}
	}
}

// forget gives up a message of which parts are missing.
func (c *Conn) forget() {
	closeAll(c.begun)
	c.begun, c.decoder = -1, Decoder{}
}

func (c *Conn) receivePacket() (n, fd int, err error) {
	n, oob, flags, _, err := c.unix.ReadMsgUnix(c.packet[:], c.rights[:])
	fds := descriptors(c.rights[:oob])
	if errors.Is(err, io.EOF) { // so is an empty packet, which may have descriptors
		err = io.EOF
	}
	if err != nil {
		closeAll(fds...)
		return 0, -1, err
	}
	// MSG_CTRUNC: some did not fit, or there is no room for descriptors in this process. Which one is missing cannot be told.
	if flags&unix.MSG_CTRUNC != 0 || len(fds) == 0 {
		closeAll(fds...)
		return n, -1, nil
	}
	closeAll(fds[1:]...)
	return n, fds[0], nil
}

// descriptors are those of all control messages that came with a packet.
func descriptors(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for _, m := range messages {
		if some, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, some...)
		}
	}
	return fds
}

func closeAll(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// SetReadDeadline is as of net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.unix.SetReadDeadline(t) }

// SetWriteDeadline is as of net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.unix.SetWriteDeadline(t) }

// SyscallConn is the socket itself.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.unix.SyscallConn() }

// CloseWrite says that nothing more will be sent: the other end settles what is open, and closes.
func (c *Conn) CloseWrite() error { return c.unix.CloseWrite() }

// Close ends the link.
func (c *Conn) Close() error { return c.unix.Close() }
