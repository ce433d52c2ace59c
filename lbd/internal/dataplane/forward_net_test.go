package dataplane

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

var bothVIPs = map[string]string{"IPv4": testVIP, "IPv6": testVIP6}

// Users move from server to server and back; each of their connections stays where it was made, whole, and new ones are made at the owner.
func TestNetForwardKeepsConnections(t *testing.T) {
	for name, vip := range bothVIPs {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b", "c")
			s.start("a")
			var streams []*numbers
			var idle []*link
			half := s.dial(vip)
			for _, owner := range []string{"a", "b", "c", "a", "b", "a", "c"} {
				if s.owners[len(s.owners)-1] != owner {
					s.move(owner)
				}
				for range 3 {
					n := s.numbers(vip, 20, time.Millisecond)
					if n.link.server != owner {
						t.Fatalf("a new connection of %s's user is at %s", owner, n.link.server)
					}
					streams = append(streams, n)
				}
				idle = append(idle, s.dial(vip))
				for _, n := range streams {
					n.more(t, 50)
				}
			}
			half.finish("half closed")
			for _, l := range idle {
				l.ask("idle until now")
				l.finish("idle until now")
			}
			for _, n := range streams {
				n.finish(t)
			}
			var sum AgentCounters
			for name := range s.servers {
				c := s.counters(name)
				sum.ForwardedOut += c.ForwardedOut
				sum.ForwardedIn += c.ForwardedIn
				sum.ForwardedOn += c.ForwardedOn
				if c.ForwardEnded+c.ForwardFailed+c.NotPeer+c.HopsSpent+c.Strays+c.StraysLost != 0 {
					t.Errorf("%s counted %+v", name, c)
				}
			}
			if sum.ForwardedOut == 0 || sum.ForwardedOn == 0 || sum.ForwardedIn == 0 {
				t.Errorf("counted %+v", sum)
			}
		})
	}
}

// A connection is found at the end of a chain of four.
func TestNetForwardChainOfFour(t *testing.T) {
	s := newSite(t, "a", "b", "c", "d", "e")
	s.start("a")
	l := s.dial(testVIP)
	for _, owner := range []string{"b", "c", "d", "e"} {
		s.move(owner)
	}
	before := s.counters("e").ForwardedOut
	l.ask("at the end")
	if n := s.counters("e").ForwardedOut - before; n == 0 {
		t.Error("nothing was forwarded")
	}
	for _, name := range []string{"b", "c", "d"} {
		if s.counters(name).ForwardedOn == 0 {
			t.Errorf("%s has sent nothing on", name)
		}
	}
	l.finish("at the end")
}

// Flows of UDP stay with who has answered them as long as they go on; new ones are the owner's, after they have been at former owners.
func TestNetForwardFlowsOfUDP(t *testing.T) {
	for name, vip := range bothVIPs {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b", "c")
			s.start("a")
			at := map[string]string{}
			one := s.dialUDP(vip)
			at["first"] = s.question(one)
			s.move("b")
			two := s.dialUDP(vip)
			at["second"] = s.question(two)
			s.move("c")
			three := s.dialUDP(vip)
			at["third"] = s.question(three)
			at["first again"], at["second again"], at["third again"] = s.question(one), s.question(two), s.question(three)
			for which, want := range map[string]string{"first": "a", "first again": "a", "second": "b", "second again": "b", "third": "c", "third again": "c"} {
				if at[which] != want {
					t.Errorf("the %s is answered by %s, want %s", which, at[which], want)
				}
			}
			if n := s.counters("a").ForwardReturned; n != 2 {
				t.Errorf("a returned %d packets, want the first ones of two flows", n)
			}
			for name, conn := range map[string]net.Conn{"a": one, "b": two, "c": three} {
				users, err := s.planes[name].FlowUsers([]netip.Addr{addr(vip)}, []Port{tcp(80), udp(53)})
				if want := netip.MustParseAddrPort(conn.LocalAddr().String()); err != nil || !slices.Equal(users, []netip.AddrPort{want}) {
					t.Errorf("%s has flows of %v, %v, want that of %v", name, users, err, want)
				}
			}
			others, err := s.planes["a"].FlowUsers([]netip.Addr{addr(vip)}, []Port{tcp(53), udp(80)})
			if err != nil || len(others) > 0 {
				t.Errorf("flows to other ports: %v, %v", others, err)
			}
		})
	}
}

// A new flow is the owner's also where the last of the former owners stands by for it.
func TestNetForwardFlowsOfUDPPastStandbys(t *testing.T) {
	s := newSite(t, "a", "b")
	s.start("a")
	s.move("b")
	standby := s.service("a")
	standby.Accept = everybody
	s.in("a", func() error { return s.planes["a"].Set([]AgentService{standby}) })
	if got := s.question(s.dialUDP(testVIP)); got != "b" {
		t.Errorf("answered by %s, want the owner", got)
	}
}

// Servers that are behind have not executed the newest epoch yet. A new flow is of one server all the same, before they have and afterwards: of a former
// owner that takes itself for the owner yet, else of the owner, also where one that is behind gives it back to another former owner.
func TestNetForwardFlowsOfUDPPastServersThatAreBehind(t *testing.T) {
	for _, tt := range []struct {
		name   string
		owners []string // of each epoch
		behind []string
		over   string // has said that it holds nothing
		stands string // by for the owner
		near   bool   // on its link: it does not take its users
		want   string
	}{
		{"the last owner", []string{"a", "b"}, []string{"a"}, "", "", false, "a"},
		{"the last but one", []string{"a", "b", "c"}, []string{"a"}, "", "", false, "c"},
		{"the last but one, the last is forgotten", []string{"a", "b", "c"}, []string{"a"}, "b", "", false, "c"},
		{"the last but one, the last stands by", []string{"a", "b", "c"}, []string{"a"}, "b", "b", false, "c"},
		{"the last but one, the last stands by on the owner's link", []string{"a", "b", "c"}, []string{"a"}, "b", "b", true, "c"},
		{"the last of three", []string{"a", "b", "c"}, []string{"b"}, "", "", false, "c"},
		{"both", []string{"a", "b", "c"}, []string{"a", "b"}, "", "", false, "b"},
		{"in a circle", []string{"a", "b", "a"}, []string{"b"}, "", "", false, "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, "a", "b", "c")
			last := len(tt.owners) - 1
			s.start(tt.owners[0])
			for _, to := range tt.owners[1:last] {
				s.move(to)
			}
			owner := tt.owners[last]
			s.owners = append(s.owners, owner)
			for name := range s.planes {
				if !slices.Contains(tt.behind, name) && name != owner {
					s.set(name)
				}
			}
			if tt.stands != "" {
				standby := s.service(tt.stands)
				standby.Accept, standby.Chains[0].Takes = everybody, true
				if tt.near {
					standby.Accept = nil
				}
				s.in(tt.stands, func() error { return s.planes[tt.stands].Set([]AgentService{standby}) })
			}
			service := s.service(owner)
			hops := &service.Chains[0].Hops
			*hops = slices.DeleteFunc(*hops, func(h Hop) bool { return tt.over != "" && h.Address == s.address(tt.over) })
			s.in(owner, func() error { return s.planes[owner].Set([]AgentService{service}) })
			s.lead(owner)

			flow := s.dialUDP(testVIP)
			at := []string{s.question(flow), s.question(flow)}
			for _, name := range tt.behind {
				s.set(name)
				at = append(at, s.question(flow))
			}
			if slices.ContainsFunc(at, func(server string) bool { return server != tt.want }) {
				t.Errorf("answered by %s, want %s each time", at, tt.want)
			}
		})
	}
}

// Of a flow that comes back the one that has yet to execute what makes it the owner has the last word: it sends nothing back.
func TestNetForwardFlowsOfUDPToAnOwnerThatIsBehind(t *testing.T) {
	s := newSite(t, "a", "b")
	s.start("a")
	s.owners = append(s.owners, "b")
	ahead := s.service("b")
	ahead.Accept, ahead.Chains[0].Owner, ahead.Chains[0].Takes, ahead.Chains[0].Owns = nil, s.address("a"), true, true
	s.in("b", func() error { return s.planes["b"].Set([]AgentService{ahead}) })
	s.set("a")
	flow := s.dialUDP(testVIP) // routers lead to a yet
	if at := []string{s.question(flow), s.question(flow)}; at[0] != "b" || at[1] != "b" {
		t.Errorf("answered by %s, want b", at)
	}
	s.set("b")
	s.lead("b")
	if at := s.question(flow); at != "b" {
		t.Errorf("then answered by %s, want b", at)
	}
	if c := s.counters("b"); c.HopsSpent > 0 {
		t.Errorf("b counted %+v", c)
	}
}

// An owner that is out goes on with its connections. What is new of users whom routers still bring to it is its standby's, that has heard of it or not.
func TestNetForwardFromAnOwnerThatIsOut(t *testing.T) {
	for _, hasHeard := range []bool{true, false} {
		t.Run(fmt.Sprint(hasHeard), func(t *testing.T) {
			s := newSite(t, "a", "b")
			s.start("a")
			old, flow := s.dial(testVIP), s.dialUDP(testVIP)
			s.question(flow)

			out, standby := s.service("a"), s.service("b")
			out.Accept, out.Chains[0].Owner, out.Chains[0].Takes, out.Chains[0].Owns = nil, s.address("b"), true, true
			standby.Chains[0].Takes = true
			if hasHeard {
				standby.Accept, standby.Chains[0].Takes = everybody, false
				standby.Chains[0].Owner, standby.Chains[0].Hops = netip.Addr{}, []Hop{{s.address("a"), 1}}
			}
			s.in("a", func() error { return s.planes["a"].Set([]AgentService{out}) })
			s.in("b", func() error { return s.planes["b"].Set([]AgentService{standby}) })
			old.ask("at its owner, by the old way")
			fresh := s.dial(testVIP)
			if fresh.server != "b" {
				t.Errorf("a new connection is at %s, want the standby", fresh.server)
			}
			if at := s.question(flow); at != "a" {
				t.Errorf("a flow that was there is answered by %s", at)
			}
			if !hasHeard {
				return
			}
			other := s.dialUDP(testVIP)
			at := []string{s.question(other)}
			s.lead("b")
			if at = append(at, s.question(other)); at[0] != "b" || at[1] != "b" {
				t.Errorf("a new flow is answered by %s, want the standby", at)
			}
			fresh.ask("by the new way")
			fresh.finish("by the new way")
			old.ask("by the new way")
			old.finish("by the new way")
		})
	}
}

// What the kernel has to say of a path comes to the server that holds the connection.
func TestNetForwardTooBig(t *testing.T) {
	for name, vip := range bothVIPs {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b")
			s.start("a")
			n := s.numbers(vip, 2000, 0)
			n.more(t, 10000)
			s.move("b")
			s.narrow(1300)
			n.more(t, 1000000)
			n.finish(t)
		})
	}
}

// Only peers may forward.
func TestNetForwardFromPeersAlone(t *testing.T) {
	s := newSite(t, "a", "b")
	s.start("a")
	n := s.numbers(testVIP, 20, time.Millisecond)
	if err := s.planes["a"].SetPeers(nil); err != nil {
		t.Fatal(err)
	}
	s.move("b")
	testnet.Eventually(t, 5*time.Second, func() bool { return s.counters("a").NotPeer > 2 }, "packets are refused")
	if c := s.counters("a"); c.ForwardedIn != 0 {
		t.Errorf("counted %+v", c)
	}
	s.peer()
	n.more(t, 100)
	n.finish(t)
}

// Packets of flows go where SetFlows says, and of such that nobody knows out of Strays; the frame goes up where it is injected.
func TestNetForwardUnknownOwner(t *testing.T) {
	for name, vip := range bothVIPs {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b")
			s.ask = true
			s.start("a")
			if err := s.servers["a"].WholeChecksums("eth0"); err != nil {
				t.Fatal(err)
			}
			if err := s.users.WholeChecksums("eth0"); err != nil {
				t.Fatal(err)
			}
			l := s.dial(vip)
			s.owners = nil // forgotten
			s.move("b")
			b, a := s.planes["b"], s.planes["a"]
			go l.conn.Write([]byte("x\n"))
			stray := <-b.Strays()
			if stray.Flow != l.flow() {
				t.Errorf("stray of %s, want %s", stray.Flow, l.flow())
			}
			if known, err := knows(s, "a", stray.Flow); err != nil || !known {
				t.Errorf("a knows %t, error %v", known, err)
			}
			if known, err := knows(s, "b", stray.Flow); err != nil || known {
				t.Errorf("b knows %t, error %v", known, err)
			}
			s.in("a", func() error { return a.Inject(stray.Frame) })
			if answer, err := l.reader.ReadString('\n'); err != nil || answer != "x\n" {
				t.Fatalf("answer %q, error %v", answer, err)
			}
			if err := b.SetFlows(map[Flow]netip.Addr{stray.Flow: s.address("a")}); err != nil {
				t.Fatal(err)
			}
			l.ask("by its flow")
			if c := s.counters("b"); c.ForwardedOut == 0 || c.Strays == 0 {
				t.Errorf("b counted %+v", c)
			}
			l.finish("by its flow")
			if err := b.DropFlows([]Flow{stray.Flow}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func knows(s *site, name string, flow Flow) (known bool, err error) {
	err = s.servers[name].Do(func() (err error) {
		known, err = s.planes[name].Knows(flow)
		return err
	})
	return known, err
}

// Super-packets are forwarded, held and let up as they are.
func TestNetForwardSuperPackets(t *testing.T) {
	for name, vip := range bothVIPs {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b")
			s.widen()
			s.start("a")
			n := s.numbers(vip, 32000, 0)
			s.move("b")
			n.more(t, 2000000)
			s.hold("a", []Flow{n.link.flow()})
			if err := s.planes["a"].Release([]Flow{n.link.flow()}); err != nil {
				t.Fatal(err)
			}
			n.more(t, 2000000)
			n.finish(t)
			if packets, least := s.counters("b").ForwardedOut, uint64(8*4000000/1500); packets > least/2 {
				t.Errorf("%d packets were forwarded; of the size of a segment they would have been %d", packets, least)
			}
			if c := s.counters("a"); c.HeldLost != 0 || c.ForwardFailed != 0 {
				t.Errorf("a counted %+v", c)
			}
		})
	}
}

// Fragments of a datagram follow their first one, to a former owner and back from there.
func TestNetForwardFragments(t *testing.T) {
	for name, vip := range bothVIPs {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b")
			s.start("a")
			old := s.dialUDP(vip)
			s.question(old)
			s.move("b")
			long := strings.Repeat("0123456789", 1000)
			for conn, want := range map[net.Conn]string{old: "a", s.dialUDP(vip): "b"} {
				conn.SetDeadline(time.Now().Add(5 * time.Second))
				if _, err := io.WriteString(conn, long); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 20000)
				if n, err := conn.Read(b); err != nil || string(b[:n]) != want+" "+long {
					t.Errorf("%s: answer of %d bytes, error %v", want, n, err)
				}
			}
			if c := s.counters("b"); c.FragmentsFollowed == 0 || c.HopsSpent > 0 {
				t.Errorf("b counted %+v", c)
			}
		})
	}
}

// A later fragment follows the first one of its own datagram, not of an earlier one with the same id: that of a flow which is here replaces it, and
// what comes long after its first follows nothing.
func TestNetForwardFragmentsOfTheirOwn(t *testing.T) {
	for name, vip := range bothVIPs {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a", "b")
			s.start("a")
			old := s.dialUDP(vip)
			s.question(old)
			s.move("b")
			fresh := s.dialUDP(vip)
			s.question(fresh)
			followed := func() uint64 { return s.counters("b").FragmentsFollowed }
			from := s.rawFragments(vip)
			from.first(old, 7)
			from.later(7)
			testnet.Eventually(t, 3*time.Second, func() bool { return followed() == 1 }, "the later fragment follows")
			from.first(fresh, 7)
			from.later(7)
			from.first(old, 8)
			from.later(8)
			testnet.Eventually(t, 3*time.Second, func() bool { return followed() >= 2 }, "that of the last one follows")
			if n := followed(); n != 2 {
				t.Errorf("%d follow: one that is behind the first of a flow which is here, too", n-1)
			}
			from.first(old, 9)
			time.Sleep(2100 * time.Millisecond) // FRAGMENT_AGE of bpf/forward.h, by the kernel's clock
			from.later(9)
			from.first(old, 10)
			from.later(10)
			testnet.Eventually(t, 3*time.Second, func() bool { return followed() >= 3 }, "that of a new one follows")
			if n := followed(); n != 3 {
				t.Errorf("%d follow: one long after its first, too", n-2)
			}
		})
	}
}

// rawFragments sends fragments as the users' host would, with ids that the test chooses.
type rawFragments struct {
	s      *site
	vip    netip.Addr
	socket int
}

func (s *site) rawFragments(vip string) rawFragments {
	s.t.Helper()
	f := rawFragments{s: s, vip: addr(vip)}
	family := unix.AF_INET
	if f.vip.Is6() {
		family = unix.AF_INET6
	}
	err := s.users.Do(func() (err error) {
		f.socket, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) // with a header of our own
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { unix.Close(f.socket) })
	return f
}

// first sends the first 8 bytes behind the header of a datagram of a flow.
func (f rawFragments) first(conn net.Conn, id byte) {
	f.s.t.Helper()
	f.send(id, 0, true, udpDatagram(conn.LocalAddr().(*net.UDPAddr).AddrPort().Port(), 53, "12345678"))
}

func (f rawFragments) later(id byte) {
	f.s.t.Helper()
	f.send(id, 2, false, []byte("abcdefgh"))
}

func (f rawFragments) send(id byte, offset uint16, more bool, payload []byte) {
	f.s.t.Helper()
	var b []byte
	var to unix.Sockaddr
	if f.vip.Is4() {
		b = packet{src: siteUser, dst: f.vip.String(), proto: protoUDP, id: uint16(id), offset: offset, more: more, payload: payload}.frame()[14:]
		to = &unix.SockaddrInet4{Addr: f.vip.As4()}
	} else {
		b = []byte{0x60, 0, 0, 0, 0, byte(8 + len(payload)), unix.IPPROTO_FRAGMENT, 64}
		b = append(append(b, addr(siteUser6).AsSlice()...), f.vip.AsSlice()...)
		flags := offset << 3
		if more {
			flags |= 1
		}
		b = append(b, unix.IPPROTO_UDP, 0, byte(flags>>8), byte(flags), 0, 0, 0, id)
		b = append(b, payload...)
		to = &unix.SockaddrInet6{Addr: f.vip.As16()}
	}
	if err := unix.Sendto(f.socket, b, 0, to); err != nil {
		f.s.t.Fatal(err)
	}
}

// On one link all servers see the group's packets: only the owner forwards, and what came by a peer is taken for whoever it is of.
func TestNetForwardOnOneLink(t *testing.T) {
	l := newLAN(t)
	s := &site{t: t, users: l.users, servers: l.servers, planes: l.agents}
	at := map[string]netip.Addr{"s1": addr("10.0.0.1"), "s2": addr("10.0.0.2")}
	l.in(t, l.edge, func() (err error) {
		l.director, err = asUnit(OpenDirector, DirectorConfig{Interfaces: []string{"users"}, Bpffs: filepath.Join(l.bpffs, "director")})
		if err != nil {
			return err
		}
		return l.director.Set(directorServices())
	})
	for name, node := range l.servers {
		node.Sysctl("net.ipv4.conf.all.rp_filter", "1")
		l.in(t, node, func() (err error) {
			l.agents[name], err = asUnit(OpenAgent, AgentConfig{
				Interface: "eth0", Bpffs: filepath.Join(l.bpffs, name), Forward: Forward{Port: sitePort, Address: at[name]},
			})
			if err != nil {
				return err
			}
			return l.agents[name].SetPeers([]netip.Addr{at["s1"], at["s2"]})
		})
	}
	epoch := uint32(0)
	had := make(map[string]uint32)
	move := func(to string) {
		epoch++
		had[to] = epoch
		set := func(name string) {
			other := map[string]string{"s1": "s2", "s2": "s1"}[name]
			services := agentServices(odd, even)
			for i := range services {
				services[i].Keeps, services[i].Accept = true, nil
				chain := Chain{Users: everybody}
				if had[other] > 0 && had[other] < epoch {
					chain.Hops = []Hop{{at[other], had[other]}}
				}
				if name == to {
					services[i].Accept = everybody
				} else {
					chain.Owner = at[to]
				}
				services[i].Chains = []Chain{chain}
			}
			l.in(t, l.servers[name], func() error { return l.agents[name].Set(services) })
		}
		for name := range l.servers {
			if name != to {
				set(name)
			}
		}
		set(to)
	}
	move("s1")
	for name := range l.servers {
		s.serve(name)
	}
	var streams []*numbers
	for _, to := range []string{"s1", "s2", "s1", "s2", "s1"} {
		if had[to] != epoch {
			move(to)
		}
		n := s.numbers(testVIP, 20, time.Millisecond)
		if n.link.server != to {
			t.Errorf("a new connection of %s's user is at %s", to, n.link.server)
		}
		streams = append(streams, n)
		for _, n := range streams {
			n.more(t, 50)
		}
	}
	for _, n := range streams {
		n.finish(t)
	}
	for name := range l.servers {
		if c := l.agentCounters(t, name); c.ForwardedOut == 0 || c.ForwardedIn == 0 || c.NotMine == 0 || c.ForwardEnded != 0 || c.NotPeer != 0 {
			t.Errorf("%s counted %+v", name, c)
		}
	}
	l.close(t, false)
}

// Packets that are held go up in their order, none is lost, and those that come meanwhile do not overtake them. A bulk stream comes
// through, too.
func TestNetHoldAndRelease(t *testing.T) {
	for name, load := range map[string]struct {
		vip   string
		size  int
		every time.Duration
	}{"paced": {testVIP, 20, time.Millisecond}, "bulk": {testVIP, 4000, 0}, "paced, IPv6": {testVIP6, 20, time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "a")
			s.start("a")
			n := s.numbers(load.vip, load.size, load.every)
			n.more(t, 100)
			flow, a := []Flow{n.link.flow()}, s.planes["a"]
			for range 20 {
				s.hold("a", flow)
				if err := a.Release(flow); err != nil {
					t.Fatal(err)
				}
				n.more(t, 100)
			}
			n.finish(t)
			if c := s.counters("a"); c.HeldLost != 0 {
				t.Error("frames that were held are lost")
			}
			if got := s.outOfOrder("a"); load.every > 0 && got != 0 {
				t.Errorf("%d segments came out of order", got)
			}
		})
	}
}

// hold holds flows, and waits until there are some packets of them.
func (s *site) hold(name string, flows []Flow) {
	s.t.Helper()
	held := s.counters(name).Held
	if err := s.planes[name].Hold(flows); err != nil {
		s.t.Fatal(err)
	}
	testnet.Eventually(s.t, 5*time.Second, func() bool { return s.counters(name).Held > held+3 }, "packets are held")
}

// outOfOrder is how many segments a server's TCP had to put aside until others came.
func (s *site) outOfOrder(name string) (n int) {
	s.t.Helper()
	out, err := s.servers[name].Run("cat", "/proc/net/netstat")
	if err != nil {
		s.t.Fatal(err)
	}
	lines := strings.Split(out, "\n")
	for i := 0; i+1 < len(lines); i += 2 { // names, then values
		at := slices.Index(strings.Fields(lines[i]), "TCPOFOQueue")
		if at < 0 {
			continue
		}
		if n, err = strconv.Atoi(strings.Fields(lines[i+1])[at]); err != nil {
			s.t.Fatal(err)
		}
		return n
	}
	s.t.Fatal("the kernel does not count segments out of order")
	return 0
}

// Packets that are passed on come to the gate of who takes the connection. Two that pass them to each other end that by hops.
func TestNetPass(t *testing.T) {
	s := newSite(t, "a", "b")
	s.start("a")
	n := s.numbers(testVIP, 20, time.Millisecond)
	n.more(t, 10)
	flow, a, b := []Flow{n.link.flow()}, s.planes["a"], s.planes["b"]
	if err := b.Hold(flow); err != nil {
		t.Fatal(err)
	}
	if err := a.Pass(flow, s.address("b")); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 5*time.Second, func() bool { return s.counters("b").Held > 2 }, "b holds what a passes on")
	if err := b.Pass(flow, s.address("a")); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 5*time.Second, func() bool { return s.counters("a").HopsSpent+s.counters("b").HopsSpent > 0 }, "a loop ends")
	for _, plane := range []AgentPlane{a, b} {
		if err := plane.Release(flow); err != nil {
			t.Fatal(err)
		}
	}
	n.more(t, 100)
	n.finish(t)
	if c := s.counters("a"); c.Passed == 0 || c.ForwardEnded != 0 {
		t.Errorf("a counted %+v", c)
	}
}

// TestNetArm: b is to get a connection that a has. Its packets go to a by b's chain, as if nothing were to come, until a passes them on: then b
// holds them.
func TestNetArm(t *testing.T) {
	s := newSite(t, "a", "b")
	s.start("a")
	n := s.numbers(testVIP, 20, time.Millisecond)
	s.move("b")
	n.more(t, 50)
	flow, a, b := []Flow{n.link.flow()}, s.planes["a"], s.planes["b"]
	if err := b.Arm(flow); err != nil {
		t.Fatal(err)
	}
	n.more(t, 100)
	if c := s.counters("b"); c.Held != 0 {
		t.Errorf("b holds %d packets that a is to get", c.Held)
	}
	if err := a.Pass(flow, s.address("b")); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 5*time.Second, func() bool { return s.counters("b").Held > 2 }, "b holds what a passes on")
	if err := a.Release(flow); err != nil { // a keeps it after all
		t.Fatal(err)
	}
	if err := b.Abandon(flow); err != nil {
		t.Fatal(err)
	}
	n.more(t, 100)
	n.finish(t)
	if c := s.counters("b"); c.ForwardEnded != 0 {
		t.Errorf("b counted %+v", c)
	}
}

// The plane is closed and the next one takes over: chains, peers and owners of flows go on, gates end.
func TestNetForwardTakeOver(t *testing.T) {
	s := newSite(t, "a", "b")
	before := s.traces("b")
	s.start("a")
	n, led, held := s.numbers(testVIP, 20, time.Millisecond), s.dial(testVIP), s.dial(testVIP)
	s.move("b")
	other := Flow{netip.MustParseAddrPort("10.9.0.99:9"), netip.MustParseAddrPort(testVIP + ":80")}
	for _, err := range []error{
		s.planes["b"].SetFlows(map[Flow]netip.Addr{led.flow(): s.address("a"), other: s.address("a")}),
		s.planes["b"].Hold([]Flow{held.flow()}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		s.in("b", func() error { return s.planes["b"].Close(true) })
		n.more(t, 50)
		s.open("b")
		n.more(t, 50)
		s.set("b")
		n.more(t, 50)
	}
	led.ask("after all")
	held.ask("after all")
	n.finish(t)
	if got := len(s.planes["b"].(*agent).gates); got != 2 {
		t.Errorf("%d flows have owners, want two", got)
	}
	s.in("b", func() error { return s.planes["b"].Close(false) })
	delete(s.planes, "b")
	if after := s.traces("b"); after != before {
		t.Errorf("after a clean stop:\n%s\nbefore:\n%s", after, before)
	}
}

// traces is what the agent may leave behind on a server.
func (s *site) traces(name string) string {
	s.t.Helper()
	out, err := s.servers[name].Run("sh", "-c", "ip -o link 2>/dev/null | cut -d' ' -f2; ip -o addr show dev lo 2>/dev/null; tc qdisc show 2>/dev/null; cat /proc/sys/net/ipv4/conf/eth0/arp_*; ls -R "+filepath.Join(s.bpffs, name)+" 2>&1")
	if err != nil && !strings.Contains(out, "No such file") {
		s.t.Fatalf("%v: %s", err, out)
	}
	return out + strings.Join(s.servers[name].Programs("eth0"), "\n")
}
