package repair

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/packetsock"
	"github.com/manycast/manycast/internal/testnet"
)

// What the user's SYN does not offer is off after a move, too, though the new server's system has it on.
func TestNetWithoutOptions(t *testing.T) {
	for option, has := range map[string]func(s State) bool{
		"timestamps":     func(s State) bool { return s.Timestamps },
		"sack":           func(s State) bool { return s.SACK },
		"window_scaling": func(s State) bool { return s.SendScale|s.ReceiveScale != 0 },
	} {
		t.Run(option, func(t *testing.T) {
			w := newNetwork(t, vip4, vip4)
			w.user.Sysctl("net.ipv4.tcp_"+option, "0")
			streamAndMove(t, w, 6, longest, 0)
			w.lead(0)
			_, s := w.connect()
			for i := range 3 {
				if w.lead(i % 2); i > 0 {
					s = w.moveOne(s, i%2)
				}
				z := freeze(t, s)
				if has(z.State) {
					t.Errorf("%s is on after %d moves", option, i)
				}
				if err := z.Thaw(); err != nil {
					t.Error(err)
				}
				z.Close()
			}
		})
	}
}

func freeze(t testing.TB, c *net.TCPConn) *Frozen {
	t.Helper()
	z, err := Freeze(descriptor(t, c))
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// Neither end reads: both queues, of some megabytes, and windows of zero go along.
func TestNetFullQueues(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		w.bigBuffers(4 << 20)
		u, s := w.connect()
		down, up := fill(t, s, 4<<20), fill(t, u, 4<<20)
		z := freeze(t, s)
		t.Logf("down %d, up %d, received %d, sent %d, unsent %d, windows %+v", down, up, len(z.State.Received), len(z.State.Sent), len(z.State.Unsent), z.State.Window)
		waiting := len(z.State.Sent) + len(z.State.Unsent) // sent, too: a user without room may have dropped what its window let in
		if len(z.State.Received) < 1<<20 || waiting < 1<<20 {
			t.Errorf("received %d, waiting %d: no full queues", len(z.State.Received), waiting)
		}
		z.Thaw()
		z.Close()
		s = w.moveOne(s, 1)
		s = w.moveOne(s, 0)
		receive(t, s, 0, up)
		receive(t, u, 0, down)
		send(t, s, uint64(down), 1000)
		receive(t, u, uint64(down), 1000)
		send(t, u, uint64(up), 1000)
		receive(t, s, uint64(up), 1000)
	})
}

// bigBuffers gives new connections buffers of so many bytes.
func (w *network) bigBuffers(bytes int) {
	w.t.Helper()
	for _, n := range []*testnet.Node{w.user, w.servers[0], w.servers[1]} {
		n.Sysctl("net.ipv4.tcp_rmem", fmt.Sprint(4096, bytes, bytes))
		n.Sysctl("net.ipv4.tcp_wmem", fmt.Sprint(4096, bytes, bytes))
	}
	w.listenAgain(true)
}

// A queue that is too long stays where it is, and the connection goes on.
func TestNetQueueTooLong(t *testing.T) {
	w := newNetwork(t, vip4, vip4)
	w.bigBuffers(64 << 20)
	u, s := w.connect()
	shutConn(t, u)
	send(t, s, 0, 32<<20)
	w.wantNotFrozen(descriptor(t, s), QueueTooLong)
	openConn(t, u)
	receive(t, u, 0, 32<<20)
}

// What is on its way is lost, and its retransmission waits: both go along, and the loss is found without a timer.
func TestNetInFlight(t *testing.T) {
	both(t, func(t *testing.T, w *network) { w.losesWhatIsOnItsWay(t, false) })
}

// So does an end that is lost with the last bytes.
func TestNetEndInFlight(t *testing.T) {
	both(t, func(t *testing.T, w *network) { w.losesWhatIsOnItsWay(t, true) })
}

func (w *network) losesWhatIsOnItsWay(t *testing.T, end bool) {
	u, s := w.connect()
	shutConn(t, u)
	send(t, s, 0, 5000)
	if end {
		s.CloseWrite()
	}
	fd := descriptor(t, s)
	defer unix.Close(fd)
	testnet.Eventually(t, 5*time.Second, func() bool { return (&fault{fd: fd}).info().retransmits > 0 }, "a retransmission is pending")
	z := freeze(t, s)
	if len(z.State.Sent) != 5000 || len(z.State.Unsent) != 0 || z.State.SendClosed != end {
		t.Errorf("sent %d, unsent %d, closed: %t", len(z.State.Sent), len(z.State.Unsent), z.State.SendClosed)
	}
	openConn(t, u)
	r := w.restore(z.State.Append(nil), 1)
	w.lead(1)
	open(t, r.FD()) // a gate keeps the answer, a filter would lose it
	if err := errors.Join(r.Thaw(), z.Close()); err != nil {
		t.Fatal(err)
	}
	receive(t, u, 0, 5000)
	if end {
		receiveEnd(t, u)
	}
	is := descriptor(t, connection(t, r.FD()))
	defer unix.Close(is)
	i, err := unix.GetsockoptTCPInfo(is, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || i.Total_retrans == 0 || i.Total_rto != 0 { // Linux 6.7 counts those
		t.Errorf("%d segments again, timer %d times, %v", i.Total_retrans, i.Total_rto, err)
	}
}

// What is on its way has come, and only its acknowledgement is lost: the socket takes that when it comes again, for it has sent all of it before.
func TestNetAcknowledgedInFlight(t *testing.T) {
	for name, hinder := range map[string][2][]string{
		"at once":                             {},
		"a window of congestion without room": {{"ip", "route", "change", "default", "via", "10.3.0.1", "initcwnd", "1"}},
		"an interface that takes nothing": {
			{"nft", "add table ip f; add chain ip f o { type filter hook output priority 0; policy drop; }"}, {"nft", "delete table ip f"},
		},
	} {
		for what, end := range map[string]bool{"bytes": false, "an end": true} {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				w := newNetwork(t, vip4, vip4)
				u, s := w.connect()
				shutConn(t, s)
				send(t, s, 0, 5000)
				if end {
					s.CloseWrite()
				}
				receive(t, u, 0, 5000)
				z := freeze(t, s)
				if len(z.State.Sent) != 5000 {
					t.Errorf("%d bytes are on their way", len(z.State.Sent))
				}
				w.at(1, hinder[0])
				r := w.restore(z.State.Append(nil), 1)
				w.lead(1)
				if err := errors.Join(r.Thaw(), z.Close()); err != nil {
					t.Fatal(err)
				}
				if n := (&fault{fd: r.FD()}).unsent(); n != 0 {
					t.Errorf("%d bytes count as never sent", n)
				}
				w.at(1, hinder[1])
				open(t, r.FD())
				s = connection(t, r.FD())
				send(t, u, 0, 1000)
				receive(t, s, 0, 1000)
				if !end {
					send(t, s, 5000, 1000)
					receive(t, u, 5000, 1000)
				}
			})
		}
	}
}

// at runs a command, if it is one, at a server.
func (w *network) at(server int, command []string) {
	w.t.Helper()
	if len(command) == 0 {
		return
	}
	if out, err := w.servers[server].Run(command...); err != nil {
		w.t.Fatalf("%v: %v: %s", command, err, out)
	}
}

// Bytes that have come out of order are no part of the state: the user, who was told that they have, sends them again.
func TestNetOutOfOrder(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		u, s := w.connect()
		send(t, u, 0, 1000)
		receive(t, s, 0, 1000)
		z := freeze(t, s)
		z.Thaw()
		fd := z.FD()
		err := packetsock.AttachFilter(fd, []bpf.Instruction{
			bpf.LoadAbsolute{Off: 4, Size: 4}, // the sequence number
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: z.State.ReceiveNext, SkipFalse: 1},
			bpf.RetConstant{Val: 0},
			bpf.RetConstant{Val: 1 << 16},
		})
		if err != nil {
			t.Fatal(err)
		}
		send(t, u, 1000, 1000) // lost, however often
		send(t, u, 2000, 1000)
		f := &fault{fd: fd}
		testnet.Eventually(t, 5*time.Second, func() bool { return f.memory()[0] > 0 }, "bytes have come")
		if n := f.ioctl(unix.SIOCINQ, "SIOCINQ"); n != 0 {
			t.Errorf("%d bytes are in order", n)
		}
		s = w.moveOne(s, 1)
		start := time.Now()
		receive(t, s, 1000, 2000)
		t.Logf("in order after %v", time.Since(start))
		z.Close()
		send(t, u, 3000, 1000)
		receive(t, s, 3000, 1000)
	})
}

func TestNetUrgent(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		u, s := w.connect()
		send(t, u, 0, 100)
		fd := descriptor(t, u)
		defer unix.Close(fd)
		if err := unix.Sendto(fd, []byte("!"), unix.MSG_OOB, nil); err != nil {
			t.Fatal(err)
		}
		send(t, u, 100, 100)
		own := descriptor(t, s)
		defer unix.Close(own)
		testnet.Eventually(t, 5*time.Second, func() bool {
			urgent, _ := (&fault{fd: own}).events()
			return urgent
		}, "urgent data")
		w.wantNotFrozen(own, Urgent)
		if _, _, err := unix.Recvfrom(own, make([]byte, 1), unix.MSG_OOB); err != nil {
			t.Fatal(err)
		}
		w.wantNotFrozen(own, Urgent) // its mark
		receive(t, s, 0, 200)
		s = w.moveOne(s, 1)
		send(t, s, 0, 100)
		receive(t, u, 0, 100)
	})
}

// Urgent data of our own that the user has not acknowledged arrives in its place in the stream, without its mark.
func TestNetUrgentSent(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		u, s := w.connect()
		shutConn(t, u)
		send(t, s, 0, 100)
		fd := descriptor(t, s)
		defer unix.Close(fd)
		if err := unix.Sendto(fd, numbered(100, 1), unix.MSG_OOB, nil); err != nil {
			t.Fatal(err)
		}
		send(t, s, 101, 99)
		s = w.moveOne(s, 1)
		send(t, s, 200, 100)
		openConn(t, u)
		receive(t, u, 0, 300)
		own := descriptor(t, u)
		defer unix.Close(own)
		if urgent, _ := (&fault{fd: own}).events(); urgent {
			t.Error("it is urgent")
		}
		send(t, u, 0, 100)
		receive(t, s, 0, 100)
	})
}

// A socket of MPTCP is not to be moved; one of a listener with MPTCP, as Go's are, whose user has none, is TCP's.
func TestNetMPTCP(t *testing.T) {
	w := newNetwork(t, vip4, vip4)
	_, s := w.connect()
	w.moveOne(s, 1)
	w.lead(0)
	var c net.Conn
	err := w.user.Do(func() (err error) {
		d := net.Dialer{}
		d.SetMultipathTCP(true)
		c, err = d.Dial("tcp", net.JoinHostPort(vip4, port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := w.listeners[0].AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if multi, err := accepted.MultipathTCP(); err != nil || !multi {
		t.Fatalf("no MPTCP: %v", err)
	}
	w.wantReason(accepted, MPTCP)
}

// Whose segments are signed stays: its keys cannot be read.
func TestNetMD5(t *testing.T) {
	w := newNetwork(t, vip4, vip4)
	sign := func(fd int, peer [4]byte) error {
		key := &unix.TCPMD5Sig{Keylen: 6}
		copy(key.Key[:], "secret")
		key.Addr.Family = unix.AF_INET
		copy((*[8]byte)(unsafe.Pointer(&key.Addr))[4:], peer[:])
		return unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, key)
	}
	l := w.listenAgain(false)
	_, s := w.connect()
	if err := w.servers[0].Do(func() error { return Movable(descriptor(t, s)) }); err != nil {
		t.Errorf("without keys: %v", err)
	}
	raw, _ := l.SyscallConn()
	raw.Control(func(fd uintptr) {
		if err := sign(int(fd), [4]byte{10, 1, 0, 2}); err != nil {
			t.Error(err)
		}
	})
	_, s = w.connectWith(func(fd int) error { return sign(fd, [4]byte{10, 9, 0, 10}) })
	if err := w.servers[0].Do(func() error { return Movable(descriptor(t, s)) }); !errors.Is(err, MD5) {
		t.Errorf("with keys: %v", err)
	}
}

// listenAgain gives the first server another listener, with MPTCP or without.
func (w *network) listenAgain(multi bool) *net.TCPListener {
	w.t.Helper()
	w.listeners[0].Close()
	var l net.Listener
	err := w.servers[0].Do(func() (err error) {
		config := net.ListenConfig{}
		config.SetMultipathTCP(multi)
		l, err = config.Listen(w.t.Context(), "tcp", w.listenAddress)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	w.listeners[0] = l.(*net.TCPListener)
	return w.listeners[0]
}

// What the application has set goes along, and so do the sizes of buffers, which the system goes on to tune; segments are as long as they were.
func TestNetOptions(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		_, s := w.connect()
		set := func(level, option, value int) {
			fd := descriptor(t, s)
			defer unix.Close(fd)
			if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
				t.Fatal(err)
			}
		}
		s.SetNoDelay(false)
		s.SetLinger(7)
		s.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 77 * time.Second, Interval: 11 * time.Second, Count: 5})
		set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 54321)
		if w.vip == vip4 {
			set(unix.IPPROTO_IP, unix.IP_TOS, 0x28)
		} else {
			set(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 0x28)
		}
		want := Options{
			KeepAlive: true, Idle: 77 * time.Second, Interval: 11 * time.Second, Count: 5, UserTimeout: 54321 * time.Millisecond,
			Linger: 7, TOS: 0x28, Congestion: "reno",
		}
		raw, _ := s.SyscallConn()
		raw.Control(func(fd uintptr) { unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") })
		z := freeze(t, s)
		if z.State.Options != want {
			t.Errorf("frozen %+v\nset    %+v", z.State.Options, want)
		}
		segment := segmentSize(t, z.FD())
		r := w.restore(z.State.Append(nil), 1)
		w.lead(1)
		if err := r.Thaw(); err != nil {
			t.Fatal(err)
		}
		open(t, r.FD())
		z.Close()
		if got := segmentSize(t, r.FD()); got != segment {
			t.Errorf("segments of %d bytes, they were of %d", got, segment)
		}
		again, err := Freeze(r.FD())
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		a, b := z.State, again.State
		if a.Options != b.Options || a.MSS != b.MSS || a.SendScale != b.SendScale || a.ReceiveScale != b.ReceiveScale {
			t.Errorf("before %+v\nafter  %+v", a, b)
		}
		if a.SendBuffer != b.SendBuffer || a.ReceiveBuffer != b.ReceiveBuffer || b.SendBufferSet || b.ReceiveBufferSet {
			t.Errorf("buffers %d %d, then %d %d, set: %v %v", a.SendBuffer, a.ReceiveBuffer, b.SendBuffer, b.ReceiveBuffer, b.SendBufferSet, b.ReceiveBufferSet)
		}
		if int32(b.Timestamp-a.Timestamp) <= 0 {
			t.Errorf("timestamp %d after %d", b.Timestamp, a.Timestamp)
		}
	})
}

func segmentSize(t *testing.T, fd int) uint32 {
	t.Helper()
	i, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	return i.Snd_mss
}

// Buffers that the application has set stay set.
func TestNetSetBuffers(t *testing.T) {
	w := newNetwork(t, vip4, vip4)
	_, s := w.connect()
	s.SetReadBuffer(100000)
	s.SetWriteBuffer(50000)
	s = w.moveOne(s, 1)
	z := freeze(t, s)
	defer z.Close()
	if !z.State.SendBufferSet || !z.State.ReceiveBufferSet || z.State.ReceiveBuffer != 200000 || z.State.SendBuffer != 100000 {
		t.Errorf("%+v", z.State)
	}
}

// The timer of keepalive runs at the new server.
func TestNetKeepAlive(t *testing.T) {
	w := newNetwork(t, vip4, vip4)
	u, s := w.connect()
	s.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 1})
	z := freeze(t, s)
	r := w.restore(z.State.Append(nil), 1)
	w.lead(1)
	shutConn(t, u)
	if err := r.Thaw(); err != nil {
		t.Fatal(err)
	}
	z.Close()
	f := os.NewFile(uintptr(r.FD()), "restored") // a net.Conn would set keepalive anew
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("read: %v, want that the user is gone", err)
	}
}

// Frozen and thawed in place while bytes stream, the connection goes on as if nothing had been.
func TestNetThawInPlace(t *testing.T) {
	for _, c := range []struct {
		name  string
		chunk int
		pause time.Duration
	}{{"paced", 1000, time.Millisecond}, {"bulk", longest, 0}} {
		t.Run(c.name, func(t *testing.T) {
			w := newNetwork(t, vip4, vip4)
			a, b := w.connect()
			u, s := newEnd(a, c.chunk, c.pause), newEnd(b, c.chunk, c.pause)
			u.start()
			s.start()
			for range 30 {
				awaitProgress(t, []*end{u, s})
				s.stop()
				fd := descriptor(t, s.c)
				shut(t, fd)
				z, err := Freeze(fd)
				if err != nil {
					t.Fatal(err)
				}
				if err := z.Thaw(); err != nil {
					t.Fatal(err)
				}
				open(t, fd)
				z.Close()
				s.c.SetDeadline(time.Time{})
				s.start()
			}
			u.stopWriting()
			s.stopWriting()
			testnet.Eventually(t, 30*time.Second, func() bool { return u.rx.Load() == s.tx.Load() && s.rx.Load() == u.tx.Load() }, "all has arrived")
			u.stop()
			s.stop()
			check(t, u, s)
		})
	}
}

// A frozen connection that is closed says nothing, and its addresses are free at once, though the application has not closed it.
func TestNetCloseIsSilent(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		u, s := w.connect()
		send(t, u, 0, 10) // is not read: an ordinary close would be a reset
		testnet.Eventually(t, 5*time.Second, func() bool {
			fd := descriptor(t, s)
			defer unix.Close(fd)
			return (&fault{fd: fd}).ioctl(unix.SIOCINQ, "SIOCINQ") == 10
		}, "bytes have come")
		z := freeze(t, s)
		if err := w.servers[0].Do(func() error { _, err := Restore(z.State); return err }); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("the same connection twice: %v", err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		r := w.restore(z.State.Append(nil), 0)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		u.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := u.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the user sees %v, want nothing", err)
		}
		w.gone(0)
	})
}

// The application listens again while connections that came live on.
func TestNetListenAgain(t *testing.T) {
	both(t, func(t *testing.T, w *network) {
		u, s := w.connect()
		s = w.moveOne(s, 1)
		w.listeners[1].Close()
		w.listen(w.servers[1]).Close()
		s = w.moveOne(s, 0)
		z := freeze(t, s)
		z.Thaw()
		z.Close()
		w.listeners[0].Close()
		w.listen(w.servers[0]).Close()
		send(t, s, 0, 10)
		receive(t, u, 0, 10)
	})
}

// A user of IPv4 goes from an application that listens on an IPv4 address to one that listens on [::], and back.
func TestNetOtherFamily(t *testing.T) {
	w := newNetwork(t, vip4, vip4)
	u, s := w.connect()
	for i := range 4 {
		fd := descriptor(t, s)
		shut(t, fd)
		z, err := Freeze(fd)
		if err != nil {
			t.Fatal(err)
		}
		z.State.OnIPv6(i%2 == 0)
		r := w.restore(z.State.Append(nil), 1-i%2)
		w.lead(1 - i%2)
		if err := r.Thaw(); err != nil {
			t.Fatal(err)
		}
		open(t, r.FD())
		z.Close()
		s.Close()
		if domain, err := unix.GetsockoptInt(r.FD(), unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || (domain == unix.AF_INET6) != (i%2 == 0) {
			t.Errorf("family %d, %v", domain, err)
		}
		s = connection(t, r.FD())
		send(t, u, uint64(i)*1000, 1000)
		receive(t, s, uint64(i)*1000, 1000)
		send(t, s, uint64(i)*1000, 1000)
		receive(t, u, uint64(i)*1000, 1000)
	}
}

// An address that is not here is an error, and nothing is left.
func TestNetAddressOfOthers(t *testing.T) {
	w := newNetwork(t, vip4, vip4)
	s := sample()
	err := w.servers[0].Do(func() error { _, err := Restore(s); return err })
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Error(err)
	}
}

// What an agent may do is enough; a port below 1024 takes one capability more.
func TestNetCapabilities(t *testing.T) {
	w := newNetwork(t, vip4, vip4)
	_, s := w.connect()
	var z *Frozen
	err := w.servers[0].Do(func() error {
		return testnet.WithCapabilities(func() (err error) {
			fd := descriptor(t, s)
			if err := Movable(fd); err != nil {
				return err
			}
			z, err = Freeze(fd)
			return err
		}, unix.CAP_NET_ADMIN)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	restore := func(port uint16, capabilities ...int) error {
		s := z.State
		s.Local = netip.AddrPortFrom(s.Local.Addr(), port)
		return w.servers[1].Do(func() error {
			return testnet.WithCapabilities(func() error {
				r, err := Restore(s)
				if err != nil {
					return err
				}
				return errors.Join(r.Thaw(), r.Close())
			}, capabilities...)
		})
	}
	for _, c := range []struct {
		port         uint16
		capabilities []int
		want         error
	}{
		{8080, []int{unix.CAP_NET_ADMIN}, nil},
		{443, []int{unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE}, nil},
		{443, []int{unix.CAP_NET_ADMIN}, unix.EACCES},
		{8080, nil, unix.EPERM},
	} {
		if err := restore(c.port, c.capabilities...); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", fmt.Sprint(c.port, c.capabilities), err, c.want)
		}
	}
}
