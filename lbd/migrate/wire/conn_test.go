package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is a link: the end under test, and the bare socket at its other end.
func pair(t *testing.T) (*Conn, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "link")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ends[i] = c.(*net.UnixConn)
	}
	return NewConn(ends[0]), ends[1]
}

// pipe is the read end of a pipe, which says when all descriptors of the write end are closed.
func pipe(t *testing.T) (end *os.File, fd int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	end = os.NewFile(uintptr(fds[0]), "pipe")
	t.Cleanup(func() { end.Close() })
	return end, fds[1]
}

func allClosed(t *testing.T, end *os.File) {
	t.Helper()
	if n, err := end.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read: %d, %v, want the end", n, err)
	}
}

func TestConn(t *testing.T) {
	c, other := pair(t)
	end, fd := pipe(t)
	sender := NewConn(other)
	go func() {
		for _, m := range examples() {
			if err := sender.Send(m, fd); err != nil {
				t.Error(err)
			}
		}
		unix.Close(fd)
		sender.Close()
	}()
	for _, want := range examples() {
		got, fd, err := c.Receive()
		if err != nil || got.Type != want.Type || got.ID != want.ID || !bytes.Equal(got.State, want.State) {
			t.Fatalf("%v %d, %v, want %v", got.Type, got.ID, err, want.Type)
		}
		if (fd >= 0) != want.Type.hasState() {
			t.Errorf("%v: descriptor %d", got.Type, fd)
		}
		closeAll(fd)
	}
	if _, _, err := c.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	allClosed(t, end)
}

// However many descriptors come, with whatever, none stays open but the one that is handed on.
func TestSurplusDescriptorsAreClosed(t *testing.T) {
	packets := func(m Message) [][]byte {
		p, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	large := packets(Message{Type: Given, ID: 1, State: make([]byte, 2*MaxPacket)})
	for name, one := range map[string]struct {
		packets [][]byte
		fds     int
		handed  int   // descriptors
		wrong   error // of Receive
	}{
		"none":              {packets(Message{Type: Given, ID: 1}), 0, 0, nil},
		"one":               {packets(Message{Type: Given, ID: 1}), 1, 1, nil},
		"three":             {packets(Message{Type: Given, ID: 1}), 3, 1, nil},
		"more than fit":     {packets(Message{Type: Given, ID: 1}), 50, 0, nil},
		"with no use":       {packets(Message{Type: Taken, ID: 1}), 3, 0, nil},
		"with each part":    {large, 2, 1, nil},
		"with half a state": {large[:1], 1, 0, io.EOF},
		"with rubbish":      {[][]byte{{1}}, 2, 0, ErrMalformed},
		"with too much":     {[][]byte{make([]byte, MaxPacket+1)}, 2, 0, ErrMalformed},
		"in between":        {[][]byte{large[0], packets(Message{Type: Live, ID: 1})[0]}, 1, 0, ErrMalformed},
		"with news":         {append([][]byte{append([]byte{99}, make([]byte, 8)...)}, packets(Message{Type: Live})...), 1, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, other := pair(t)
			end, fd := pipe(t)
			fds := make([]int, one.fds)
			for i := range fds {
				fds[i] = fd
			}
			for _, p := range one.packets {
				if _, _, err := other.WriteMsgUnix(p, unix.UnixRights(fds...), nil); err != nil {
					t.Fatal(err)
				}
			}
			other.Close()
			unix.Close(fd)
			_, got, err := c.Receive()
			if !errors.Is(err, one.wrong) || (got >= 0) != (one.handed == 1) {
				t.Errorf("descriptor %d, %v, want %d, %v", got, err, one.handed, one.wrong)
			}
			closeAll(got)
			allClosed(t, end)
		})
	}
}

// FuzzConn sends packets with descriptors beside them: how many, and the length of the packet, are in two bytes before each. All of them are closed in
// the end, but for those that were handed on.
func FuzzConn(f *testing.F) {
	for _, m := range examples()[:9] {
		packets, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte{1, byte(len(packets[0]))}, packets[0]...))
	}
	f.Add([]byte{3, 14, byte(Given), 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 'a', 2, 10, byte(more), 0, 0, 0, 0, 0, 0, 0, 1, 'b'})
	f.Fuzz(func(t *testing.T, stream []byte) {
		c, other := pair(t)
		end, fd := pipe(t)
		go func() {
			defer unix.Close(fd)
			defer other.Close()
			for len(stream) >= 2 {
				fds := make([]int, stream[0]%32)
				for i := range fds {
					fds[i] = fd
				}
				n := min(int(stream[1]), len(stream)-2)
				if n > 0 {
					if _, _, err := other.WriteMsgUnix(stream[2:2+n], unix.UnixRights(fds...), nil); err != nil {
						return
					}
				}
				stream = stream[2+n:]
			}
		}()
		for {
			_, fd, err := c.Receive()
			closeAll(fd)
			if err != nil && !errors.Is(err, ErrMalformed) {
				break
			}
		}
		allClosed(t, end)
	})
}
