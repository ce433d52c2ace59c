package dataplane

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
	"golang.org/x/sys/unix"
)

func TestNetEachUserHasOneServer(t *testing.T) {
	l := newLAN(t)
	l.open(t)
	l.set(t)
	l.serve(t)

	upload := strings.Repeat("0123456789abcdef", 4<<20/16)
	for user, want := range map[string]string{"10.0.0.11": "s1", "10.0.0.12": "s2", "10.0.0.13": "s1", "10.0.0.14": "s2"} {
		whole := fmt.Sprintf("%s %d %x <nil>", want, len(upload), sha256.Sum256([]byte(upload)))
		if got := l.get(t, user, upload); got != whole {
			t.Errorf("user %s: answer %q, want %q", user, got, whole)
		}
	}
	// The other service of the VIP is split the other way round.
	for _, size := range []int{1, 1472, 1473, 60000} {
		question := strings.Repeat("q", size)
		for user, want := range map[string]string{"10.0.0.11": "s2", "10.0.0.12": "s1"} {
			if got := l.ask(t, user, question); got != want+" "+question {
				t.Errorf("user %s: answer of %d bytes from %.2s, want %d from %s", user, len(got), got, size+3, want)
			}
		}
	}
	for name := range l.servers {
		c := l.agentCounters(t, name)
		if c.Delivered == 0 || c.NotMine == 0 || c.Fragments == 0 || c.Clamped == 0 || c.Malformed != 0 || c.NoPort != 0 {
			t.Errorf("%s counted %+v", name, c)
		}
	}
	c, err := l.director.Counters()
	if err != nil || c.Rewritten == 0 || c.Fragments == 0 || c.FragmentsLost != 0 || c.NoService != 0 {
		t.Errorf("director counted %+v, error %v", c, err)
	}
	l.close(t, false)
}

// TestNetEchoOfTheVIP: an echo to the VIP is answered by the first service's server alone.
func TestNetEchoOfTheVIP(t *testing.T) {
	l := newLAN(t)
	l.open(t)
	l.set(t)
	out, err := l.users.Run("ping", "-c", "2", "-i", "0.2", "-W", "2", "-s", "3000", "-I", "10.0.0.11", testVIP)
	if err != nil || !strings.Contains(out, " 2 received") || strings.Contains(out, "DUP") {
		t.Errorf("%v: %s", err, out)
	}
	if s1, s2 := l.agentCounters(t, "s1"), l.agentCounters(t, "s2"); s1.Delivered != 0 || s2.Delivered == 0 {
		t.Errorf("s1 took %d packets, s2 %d: want none and some", s1.Delivered, s2.Delivered)
	}
	l.close(t, false)
}

func TestNetAnswersAnnounceThePathsMSS(t *testing.T) {
	l := newLAN(t)
	l.open(t)
	l.set(t)
	l.serve(t)
	dump := l.users.Start("tcpdump", "-ni", "eth0", "-U", "-v", "-c", "1", "--immediate-mode", "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn|tcp-ack")
	testnet.Eventually(t, 5*time.Second, func() bool { return strings.Contains(dump.Output(), "listening on") }, "tcpdump listens")
	l.get(t, "10.0.0.11", "")
	want := fmt.Sprintf("mss %d", lanMTU-40)
	testnet.Eventually(t, 5*time.Second, func() bool { return strings.Contains(dump.Output(), "Flags [S.]") }, "tcpdump sees the SYN-ACK")
	if out := dump.Output(); !strings.Contains(out, want) {
		t.Errorf("SYN-ACK without %q:\n%s", want, out)
	}
	l.close(t, false)
}

// TestNetTooBigReachesTheServerOfTheUser: a router's "fragmentation needed" comes to the server whose packet it is about, though
// the router's own address belongs to the other server's portion, and that server's kernel takes it.
func TestNetTooBigReachesTheServerOfTheUser(t *testing.T) {
	l := newLAN(t)
	l.open(t)
	l.set(t)
	l.serve(t)
	for user, want := range map[string]string{"10.0.0.11": "s2", "10.0.0.12": "s1"} {
		router := "10.0.0.13" // odd: s2's for dns
		if want == "s2" {
			router = "10.0.0.14"
		}
		about := packet{src: testVIP, dst: user, proto: protoUDP, payload: udpDatagram(53, 5353, strings.Repeat("x", 100))}
		body := icmpMessage(3, 4, quote(about))
		body[6], body[7] = 1300>>8, 1300&0xff // next-hop MTU, RFC 1191
		l.sendRaw(t, packet{src: router, dst: testVIP, proto: protoICMP, payload: body})
		for name, node := range l.servers {
			hasMTU := func() bool {
				out, err := node.Run("ip", "route", "get", user, "from", testVIP)
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				return strings.Contains(out, "mtu 1300")
			}
			if name == want {
				testnet.Eventually(t, 3*time.Second, hasMTU, name, " knows the path MTU to ", user)
			} else if hasMTU() {
				t.Errorf("%s got the path MTU to %s, which is %s's user", name, user, want)
			}
		}
	}
	l.close(t, false)
}

// sendRaw sends a packet from the users' side as it is.
func (l *lan) sendRaw(t *testing.T, p packet) {
	t.Helper()
	l.in(t, l.users, func() error {
		conn, err := net.ListenIP("ip4:icmp", &net.IPAddr{IP: net.ParseIP(p.src)})
		if err != nil {
			return err
		}
		defer conn.Close()
		frame := p.frame()
		_, err = conn.WriteTo(frame[14+20:], &net.IPAddr{IP: net.ParseIP(p.dst)})
		return err
	})
}

func TestNetCleanStopLeavesNothing(t *testing.T) {
	l := newLAN(t)
	s1 := l.servers["s1"]
	before := l.traces(t)
	// The operator's own address of s2 stays when the agent goes.
	l.servers["s2"].Address("lo", testVIP+"/32")
	l.open(t)
	l.set(t)
	if out, _ := s1.Run("ip", "-o", "addr", "show", "lo"); !strings.Contains(out, testVIP+"/32") {
		t.Errorf("no VIP on lo: %s", out)
	}
	for key, want := range map[string]string{"arp_ignore": "1", "arp_announce": "2"} {
		if out, _ := s1.Run("cat", "/proc/sys/net/ipv4/conf/eth0/"+key); strings.TrimSpace(out) != want {
			t.Errorf("%s is %s, want %s", key, out, want)
		}
	}
	if agent, director := s1.Programs("eth0"), l.edge.Programs("users"); len(agent) == 0 || len(director) == 0 {
		t.Errorf("programs of the agent %q, of the director %q", agent, director)
	}
	// A Set without a service takes the VIP away and leaves the rest.
	l.in(t, s1, func() error { return l.agents["s1"].Set(nil) })
	if out, _ := s1.Run("ip", "-o", "addr", "show", "lo"); strings.Contains(out, testVIP) {
		t.Errorf("VIP of no service is left on lo: %s", out)
	}
	l.set(t)
	l.close(t, false)
	if after := l.traces(t); after != before {
		t.Errorf("after a clean stop:\n%s\nbefore:\n%s", after, before)
	}
	if out, _ := l.servers["s2"].Run("ip", "-o", "addr", "show", "lo"); !strings.Contains(out, testVIP+"/32") {
		t.Errorf("the operator's own VIP is gone from s2: %s", out)
	}
	if left, err := filepath.Glob(l.bpffs + "/*/*"); err != nil || len(left) != 0 {
		t.Errorf("pins left: %v %v", left, err)
	}
}

// traces is what a plane may leave on s1 and on the director.
func (l *lan) traces(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, c := range []struct {
		node *testnet.Node
		argv []string
	}{
		{l.servers["s1"], []string{"ip", "-o", "addr", "show", "lo"}},
		{l.servers["s1"], []string{"sh", "-c", "cat /proc/sys/net/ipv4/conf/eth0/arp_*"}},
		{l.servers["s1"], []string{"tc", "qdisc", "show"}},
		{l.edge, []string{"tc", "qdisc", "show"}},
	} {
		out, err := c.node.Run(c.argv...)
		if err != nil {
			t.Fatalf("%v: %v: %s", c.argv, err, out)
		}
		all.WriteString(out)
	}
	fmt.Fprintln(&all, l.servers["s1"].Programs("eth0"), l.edge.Programs("users"))
	return all.String()
}

// TestNetLostUsersAreReset: when a portion moves, the loser's open connection is reset by the loser when it closes it, or by the
// winner on the first packet that it does not know; other users keep theirs.
func TestNetLostUsersAreReset(t *testing.T) {
	l := newLAN(t)
	l.open(t)
	l.set(t)
	l.serve(t)
	closed, unknown, kept := l.hold(t, "10.0.0.11"), l.hold(t, "10.0.0.13"), l.hold(t, "10.0.0.12")

	// All of s1's users go to s2.
	everybody := portion.Set{Permit: append(append([]portion.Portion(nil), odd.Permit...), even.Permit...)}
	l.in(t, l.servers["s1"], func() error { return l.agents["s1"].Set(agentServices(portion.Set{}, even)) })
	l.in(t, l.servers["s2"], func() error { return l.agents["s2"].Set(agentServices(everybody, odd)) })

	l.in(t, l.servers["s1"], func() error {
		n, err := CloseConnections(t.Context(), addr(testVIP), []Port{tcp(80), udp(53)}, func(user netip.AddrPort) bool {
			return user.Addr() == addr("10.0.0.11")
		})
		if n != 1 {
			t.Errorf("closed %d, want 1", n)
		}
		return err
	})
	if err := readError(t, closed); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("user of a closed connection sees %v, want a reset", err)
	}
	io.WriteString(unknown, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := readError(t, unknown); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("user of a connection that the winner does not know sees %v, want a reset", err)
	}
	io.WriteString(kept, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := readError(t, kept); err != nil {
		t.Errorf("user whose portion stayed sees %v, want an answer", err)
	}
	if got := l.get(t, "10.0.0.11", "x"); !strings.HasPrefix(got, "s2 ") {
		t.Errorf("moved user is answered by %.2s, want s2", got)
	}
	l.close(t, false)
}

// hold opens a connection of a user to VIP:80 and asks nothing yet.
func (l *lan) hold(t *testing.T, user string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(user)}, Timeout: 3 * time.Second}
	var c net.Conn
	l.in(t, l.users, func() (err error) {
		c, err = d.Dial("tcp4", testVIP+":80")
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}
