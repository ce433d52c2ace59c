package dataplane

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
)

// rawUser is a user of a site without a TCP of its own: it says what the test says, and answers nothing by itself.
type rawUser struct {
	t            testing.TB
	socket       *os.File
	router       [6]byte
	address, vip netip.Addr
}

const (
	rawAddress  = "10.9.0.99"
	rawAddress6 = "2001:db8:9::99"
)

func (s *site) rawUser() *rawUser { return s.rawUserOf(testVIP) }

// rawUserOf is a user of a VIP, of its family.
func (s *site) rawUserOf(vip string) *rawUser {
	s.t.Helper()
	mac := func(node *testnet.Node, ifname string) string {
		l, err := node.Netlink().LinkByName(ifname)
		if err != nil {
			s.t.Fatal(err)
		}
		return string(l.Attrs().HardwareAddr)
	}
	users, err := s.users.Netlink().LinkByName("eth0")
	if err != nil {
		s.t.Fatal(err)
	}
	u := &rawUser{t: s.t, router: [6]byte([]byte(mac(s.router, "users"))), address: addr(rawAddress), vip: addr(vip)}
	kind := uint16(unix.ETH_P_IP)
	if u.vip.Is6() {
		u.address, kind = addr(rawAddress6), unix.ETH_P_IPV6
	}
	if out, err := s.router.Run("ip", "neigh", "replace", u.address.String(), "lladdr", users.Attrs().HardwareAddr.String(), "dev", "users"); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	err = s.users.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		u.socket = os.NewFile(uintptr(fd), "user")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, kind)), Ifindex: users.Attrs().Index})
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { u.socket.Close() })
	return u
}

// tcp sends a segment to the VIP's port 80.
func (u *rawUser) tcp(port uint16, flags byte, seq, ack uint32) {
	u.t.Helper()
	u.say(port, flags, seq, ack, "")
}

// say sends a segment with data.
func (u *rawUser) say(port uint16, flags byte, seq, ack uint32, data string) {
	u.t.Helper()
	said := segment(port, 80, flags, seq, ack, data)
	binary.BigEndian.PutUint16(said[14:], 65535) // window
	frame := packet{src: rawAddress, dst: testVIP, proto: protoTCP, payload: said}.frame()
	if u.vip.Is6() {
		frame = u.frame6(said)
	}
	copy(frame, u.router[:])
	if _, err := u.socket.Write(frame); err != nil {
		u.t.Fatal(err)
	}
}

// frame6 is a segment to a VIP of IPv6.
func (u *rawUser) frame6(segment []byte) []byte {
	addresses := append(u.address.AsSlice(), u.vip.AsSlice()...)
	pseudo := append(append([]byte(nil), addresses...), 0, 0, 0, byte(len(segment)), 0, 0, 0, protoTCP)
	binary.BigEndian.PutUint16(segment[16:], checksum(append(pseudo, segment...), 0))
	frame := append(make([]byte, 12), 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(segment)), protoTCP, 64)
	return append(append(frame, addresses...), segment...)
}

// answered is what TCP answered.
type answered struct {
	flags    byte
	seq, ack uint32
	data     string
}

// answer is the next segment to a port of this user, within that time.
func (u *rawUser) answer(port uint16, within time.Duration) (s answered, ok bool) {
	u.t.Helper()
	b := make([]byte, 2048)
	u.socket.SetReadDeadline(time.Now().Add(within))
	for {
		n, err := u.socket.Read(b)
		if err != nil {
			return s, false
		}
		tcp := u.segmentOf(b[:n])
		if len(tcp) < 20 || binary.BigEndian.Uint16(tcp[2:]) != port {
			continue
		}
		data := tcp[int(tcp[12]>>4)*4:]
		return answered{tcp[13], binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:]), string(data)}, true
	}
}

// segmentOf is the segment to this user in a frame; nil: there is none.
func (u *rawUser) segmentOf(frame []byte) []byte {
	switch {
	case u.vip.Is4() && len(frame) >= 34 && frame[23] == protoTCP && [4]byte(frame[30:34]) == u.address.As4():
		return frame[34:min(len(frame), 14+int(binary.BigEndian.Uint16(frame[16:])))] // short ones are filled up
	case u.vip.Is6() && len(frame) >= 54 && frame[20] == protoTCP && [16]byte(frame[38:54]) == u.address.As16():
		return frame[54:]
	}
	return nil
}

// What nobody knows is reset once, by the last in the chain, whatever chains say of each other.
func TestNetForwardEndsUnknown(t *testing.T) {
	s := newSite(t, "a", "b", "c", "d", "e")
	s.start("a")
	for _, owner := range []string{"b", "c", "d", "e"} {
		s.move(owner)
	}
	u := s.rawUser()
	u.tcp(7000, flagACK, 1, 5000)
	reset, ok := u.answer(7000, 3*time.Second)
	if !ok || reset.flags != flagRST || reset.seq != 5000 {
		t.Fatalf("answer %+v, %t", reset, ok)
	}
	if again, ok := u.answer(7000, 300*time.Millisecond); ok {
		t.Errorf("and then %+v", again)
	}
	on := func() (sum uint64) {
		for name := range s.servers {
			c := s.counters(name)
			sum += c.ForwardedOut + c.ForwardedOn
		}
		return sum
	}
	if n := on(); n != 4 || s.counters("a").ForwardEnded != 1 {
		t.Errorf("forwarded %d times, want 4; a counted %+v", n, s.counters("a"))
	}

	// Two servers that each say that the other had the user, and owns it now.
	contradict := func(name, other string, until uint32) {
		service := s.service(name)
		service.Accept = nil
		service.Chains = []Chain{{Users: everybody, Hops: []Hop{{s.address(other), until}}, Owner: s.address(other)}}
		s.in(name, func() error { return s.planes[name].Set([]AgentService{service}) })
	}
	for _, until := range []uint32{4, 9, 0, epochMask, 1 << 19} {
		before := on()
		contradict("e", "d", 5)
		contradict("d", "e", until)
		port := 7001 + uint16(until&1023)
		u.tcp(port, flagACK, 1, 6000)
		if reset, ok := u.answer(port, 3*time.Second); !ok || reset.flags != flagRST {
			t.Errorf("answer %+v, %t", reset, ok)
		}
		if again, ok := u.answer(port, 100*time.Millisecond); ok {
			t.Errorf("and then %+v", again)
		}
		if n := on() - before; n > 3 {
			t.Errorf("until %d: forwarded %d times", until, n)
		}
		u.tcp(port, flagSYN, 1, 0) // the owner's, says each: whoever gets it so takes it
		if opened, ok := u.answer(port, 3*time.Second); !ok || opened.flags != flagSYN|flagACK {
			t.Errorf("answer to an opening %+v, %t", opened, ok)
		}
		u.tcp(port, flagRST, 2, 0)
	}
}

// A handshake that began at the former owner ends there, whether it kept a request or gave a cookie away.
func TestNetForwardHandshake(t *testing.T) {
	for family, vip := range bothVIPs {
		for name, cookies := range map[string]string{"request": "0", "cookie": "2"} {
			t.Run(name+" of "+family, func(t *testing.T) { forwardHandshake(t, vip, cookies) })
		}
	}
}

func forwardHandshake(t *testing.T, vip, cookies string) {
	s := newSite(t, "a", "b")
	s.start("a")
	s.servers["a"].Sysctl("net.ipv4.tcp_syncookies", cookies)
	u := s.rawUserOf(vip)
	u.tcp(7000, flagSYN, 99, 0)
	opened := u.until(7000, func(a answered) bool { return a.flags == flagSYN|flagACK })
	s.move("b")
	u.tcp(7000, flagACK, 100, opened.seq+1)
	u.until(7000, func(a answered) bool { return a.data == "a\n" })
	u.tcp(7000, flagRST|flagACK, 100, opened.seq+3)
	if c := s.counters("b"); c.ForwardedOut < 1 {
		t.Errorf("b counted %+v", c)
	}
	if c := s.counters("a"); c.ForwardEnded != 0 {
		t.Errorf("a counted %+v", c)
	}
}

// A port that is used again while a former owner has the connection before in TIME-WAIT is the new connection's; what comes late of the old one is
// answered.
func TestNetForwardPortUsedAgain(t *testing.T) {
	for name, vip := range bothVIPs {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b")
			s.start("a")
			u := s.rawUserOf(vip)
			opened := u.open(7000, 99, "a\n")
			u.say(7000, flagACK, 100, opened.seq+3, quit)
			end := u.until(7000, func(a answered) bool { return a.flags&flagFIN != 0 })
			last := func() { u.tcp(7000, flagFIN|flagACK, 100+uint32(len(quit)), end.seq+1) }
			last()
			u.until(7000, func(a answered) bool { return a.ack == 101+uint32(len(quit)) })

			s.move("b")
			s.lead("a")
			last()
			if late := u.until(7000, func(answered) bool { return true }); late.flags != flagACK {
				t.Errorf("what comes again is answered by %+v", late)
			}
			opened = u.open(7000, 5000, "b\n")
			s.move("a")
			u.say(7000, flagACK, 5001, opened.seq+3, "still")
			u.until(7000, func(a answered) bool { return a.data == "still" })
			if c := s.counters("a"); c.ForwardEnded != 0 {
				t.Errorf("a counted %+v", c)
			}
		})
	}
}

// open opens a connection, and waits for what the server says first.
func (u *rawUser) open(port uint16, seq uint32, says string) answered {
	u.t.Helper()
	u.tcp(port, flagSYN, seq, 0)
	opened := u.until(port, func(a answered) bool { return a.flags == flagSYN|flagACK })
	u.tcp(port, flagACK, seq+1, opened.seq+1)
	u.until(port, func(a answered) bool { return a.data == says })
	return opened
}

// until waits for an answer; a reset is none.
func (u *rawUser) until(port uint16, is func(answered) bool) answered {
	u.t.Helper()
	for {
		got, ok := u.answer(port, 3*time.Second)
		if !ok || got.flags&flagRST != 0 {
			u.t.Fatalf("answer %+v, %t", got, ok)
		}
		if is(got) {
			return got
		}
	}
}

// A user pinned to a former owner's path keeps connections there; new ones are the owner's.
func TestNetForwardPinnedUser(t *testing.T) {
	for name, vip := range bothVIPs {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b")
			s.start("a")
			old := s.dial(vip)
			s.move("b")
			s.lead("a")
			fresh := s.numbers(vip, 20, time.Millisecond)
			if old.server != "a" || fresh.link.server != "b" {
				t.Errorf("at %s, and the new one at %s", old.server, fresh.link.server)
			}
			fresh.more(t, 200)
			old.ask("pinned")
			udp := s.dialUDP(vip)
			if at := s.question(udp); at != "b" {
				t.Errorf("a new flow of UDP is answered by %s", at)
			}
			if at := s.question(udp); at != "b" {
				t.Errorf("then by %s", at)
			}
			fresh.finish(t)
			if n := s.counters("b").ForwardedOut + s.counters("b").ForwardedOn; name == "IPv4" && n > 3 {
				t.Errorf("b has forwarded %d packets of what it holds", n)
			}
		})
	}
}

// A former owner that is behind, as one that was cut off, sends what is new to a server that has lost the users since: the owner gets it all the same.
func TestNetForwardPastFormerOwners(t *testing.T) {
	for name, vip := range bothVIPs {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b", "c")
			s.start("a")
			s.move("b")
			behind := s.service("a")
			s.move("c")
			s.in("a", func() error { return s.planes["a"].Set([]AgentService{behind}) })
			s.lead("a")
			fresh := s.numbers(vip, 20, time.Millisecond)
			if fresh.link.server != "c" {
				t.Errorf("a new connection is at %s, want the owner", fresh.link.server)
			}
			fresh.more(t, 200)
			s.set("a")
			fresh.more(t, 200)
			fresh.finish(t)
			if c := s.counters("b"); c.ForwardReturned == 0 || c.HopsSpent > 0 {
				t.Errorf("b counted %+v", c)
			}

			next := s.service("b") // about to have the users, or standing by for them
			next.Chains[0].Takes = true
			s.in("a", func() error { return s.planes["a"].Set([]AgentService{behind}) })
			s.in("b", func() error { return s.planes["b"].Set([]AgentService{next}) })
			if at := s.dial(vip).server; at != "b" {
				t.Errorf("a new connection is at %s, want who takes them", at)
			}
		})
	}
}

// A server that does not know yet that a user is its own resets nothing that another one sends it.
func TestNetForwardWaitsForTheOwner(t *testing.T) {
	s := newSite(t, "a", "b")
	s.start("a")
	u := s.rawUser()
	says := func(name string, accept portion.Union, chains ...Chain) {
		service := s.service(name)
		service.Accept, service.Chains = accept, chains
		s.in(name, func() error { return s.planes[name].Set([]AgentService{service}) })
	}
	says("b", nil)
	says("a", everybody, Chain{Users: everybody, Owner: s.address("b")})
	u.tcp(7000, flagACK, 1, 5000)
	testnet.Eventually(t, 3*time.Second, func() bool { return s.counters("b").NotMine > 0 }, "b drops it")
	if reset, ok := u.answer(7000, 100*time.Millisecond); ok {
		t.Errorf("answer %+v", reset)
	}
	says("b", everybody)
	u.tcp(7000, flagACK, 1, 5000)
	if reset, ok := u.answer(7000, 3*time.Second); !ok || reset.flags != flagRST {
		t.Errorf("the owner answers %+v, %t", reset, ok)
	}
}
