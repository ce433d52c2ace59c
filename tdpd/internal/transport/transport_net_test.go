package transport

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// role is what a process of the test does in its namespace.
type role struct {
	LSR              byte
	V4, V6           netip.Addr
	Link             string     // link hellos by it
	More             []string   // interfaces on which LDP runs as well
	Target           netip.Addr // targeted hellos to it
	Forged           netip.Addr // link hellos that are wrong, to it alone; what is wrong with them RFC 7552 ends adjacencies for
	Peer             netip.Addr // connects to it
	Secret           string     // of its own connection
	Known, OnAccept  string     // secrets: of Peers' connections from the start; of those that it has accepted
	From             netip.Addr // whose, where Known is set
	GTSM, OnlyNearby bool
	Stops            bool // LDP runs nowhere any more when a hello has come
}

const roleEnv = "MANYCAST_TRANSPORT_ROLE"

func TestMain(m *testing.M) {
	if text := os.Getenv(roleEnv); text != "" {
		var r role
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			panic(err)
		}
		r.play()
		return
	}
	os.Exit(m.Run())
}

// play opens the sockets, says what it has to every 100 ms, and writes what it hears.
func (r role) play() {
	id := wire.Identifier{LSR: wire.LSRID{r.LSR, r.LSR, r.LSR, r.LSR}}
	n, err := Open(Config{ID: id, Transport4: r.V4, Transport6: r.V6}, slog.Default())
	if err != nil {
		fmt.Println("open:", err)
		return
	}
	links := []discovery.Interface{}
	for _, name := range append(r.More, r.Link) {
		if name != "" {
			links = append(links, discovery.Interface{Name: name, V4: true, V6: true})
		}
	}
	if err := n.SetInterfaces(links); err != nil {
		fmt.Println("interfaces:", err)
	}
	if r.Known != "" {
		fmt.Println("secret", n.SetSecret(r.From, r.Known))
	}
	if r.Peer.IsValid() {
		local := r.V4
		if r.Peer.Is6() {
			local = r.V6
		}
		n.Connect(Options{Local: local, Peer: r.Peer, Secret: r.Secret, GTSM: r.GTSM})
	}
	fmt.Println("started")
	tick := time.NewTicker(100 * time.Millisecond)
	for {
		select {
		case <-tick.C:
			r.greet(n)
		case e := <-n.Events():
			r.take(e)
			if _, is := e.(Hello); is && r.Stops {
				fmt.Println("stops", n.SetInterfaces(nil))
				r.Stops = false
			}
		}
	}
}

func (r role) greet(n *Linux) {
	for _, to := range []netip.Addr{discovery.AllRouters4, discovery.AllRouters6} {
		if r.Link != "" && (to.Is4() && r.V4.IsValid() || to.Is6() && r.V6.IsValid()) {
			_ = n.Hello(discovery.Send{Interface: r.Link, To: to, Hello: wire.Hello{HelloParameters: wire.HelloParameters{HoldTime: 15}}})
		}
	}
	if r.Target.IsValid() {
		_ = n.Hello(discovery.Send{To: r.Target, Hello: wire.Hello{HelloParameters: wire.HelloParameters{HoldTime: 45, Targeted: true}}})
	}
	if r.Forged.IsValid() {
		_ = n.hellos[0].send(r.wrongHello(), "", r.Forged)
	}
}

// wrongHello has a transport preference that does not exist.
func (r role) wrongHello() []byte {
	h := wire.Hello{HelloParameters: wire.HelloParameters{HoldTime: 15}, Preference: wire.PreferIPv4}
	b, err := wire.AppendPDU(nil, wire.Identifier{LSR: wire.LSRID{r.LSR, r.LSR, r.LSR, r.LSR}}, 0, h)
	if err != nil {
		panic(err)
	}
	b[len(b)-4] = 0
	return b
}

func (r role) take(e Event) {
	switch e := e.(type) {
	case Hello:
		if e.Err != nil {
			fmt.Printf("wrong hello by %q: %v\n", e.Interface, e.Err)
			return
		}
		fmt.Printf("hello %v from %v by %q targeted %v\n", e.Sender, e.Source, e.Interface, e.Hello.Targeted)
	case Connected:
		fmt.Println("connected")
		e.Conn.Send(wire.KeepAlive{Head: wire.Head{ID: 1}})
	case Accepted:
		fmt.Println("accepted", e.Conn.Remote())
		e.Conn.Send(wire.KeepAlive{Head: wire.Head{ID: 2}})
	case Received:
		fmt.Printf("received %v of %v\n", e.Messages[0].Message.MessageID(), e.Sender)
		r.answer(e.Conn)
	case Failed:
		fmt.Println("failed", e.Err)
	case Closed:
		fmt.Println("closed", e.Err)
	}
}

// answer protects an accepted connection, as the service does when it knows whose it is, and goes on with it.
func (r role) answer(c Conn) {
	if r.OnAccept != "" {
		fmt.Println("protected", c.SetSecret(r.OnAccept))
	}
	if r.OnlyNearby {
		fmt.Println("nearby", c.SetGTSM())
	}
	time.Sleep(50 * time.Millisecond)
	c.Send(wire.KeepAlive{Head: wire.Head{ID: 3}})
}

// couple is two processes on one link.
type couple struct {
	t    *testing.T
	a, b *testnet.Node
}

func newCouple(t *testing.T) *couple {
	n := testnet.New(t)
	c := &couple{t, n.Node("a"), n.Node("b")}
	n.Link(c.a, "eth0", "10.0.0.1/24", c.b, "eth0", "10.0.0.2/24")
	c.a.Address("eth0", "2001:db8::1/64")
	c.b.Address("eth0", "2001:db8::2/64")
	return c
}

func (c *couple) play(n *testnet.Node, r role) *testnet.Process {
	c.t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		c.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	p := n.Start("env", roleEnv+"="+string(text), self)
	c.says(p, "started")
	return p
}

func (c *couple) says(p *testnet.Process, text string) {
	c.t.Helper()
	testnet.Eventually(c.t, 10*time.Second, func() bool { return strings.Contains(p.Output(), text) }, "says: "+text)
}

var (
	a4, b4 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	a6, b6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// TestNetHellos: link hellos of both families come by their interface, targeted ones from the transport address; sessions go over both.
func TestNetHellos(t *testing.T) {
	c := newCouple(t)
	b := c.play(c.b, role{LSR: 2, V4: b4, V6: b6, Link: "eth0"})
	a := c.play(c.a, role{LSR: 1, V4: a4, V6: a6, Link: "eth0", Target: b4, Peer: b6})
	c.says(b, `hello 1.1.1.1:0 from 10.0.0.1 by "eth0" targeted false`)
	c.says(b, `hello 1.1.1.1:0 from fe80:`)
	c.says(b, `hello 1.1.1.1:0 from 10.0.0.1 by "eth0" targeted true`)
	c.says(a, `hello 2.2.2.2:0 from 10.0.0.2 by "eth0" targeted false`)
	c.says(a, "received 3 of 2.2.2.2:0")
	c.says(b, "accepted 2001:db8::1")
	c.says(b, "received 3 of 1.1.1.1:0")
}

// TestNetHellosOfOtherInterfaces are not taken.
func TestNetHellosOfOtherInterfaces(t *testing.T) {
	c := newCouple(t)
	b := c.play(c.b, role{LSR: 2, V4: b4, V6: b6})
	c.play(c.a, role{LSR: 1, V4: a4, V6: a6, Link: "eth0", Target: b4})
	c.says(b, "targeted true")
	if out := b.Output(); strings.Contains(out, "targeted false") {
		t.Errorf("link hellos where LDP does not run:\n%s", out)
	}
}

// TestNetManyInterfaces: more than the 20 by which the kernel lets one socket be a member of a group of IPv4. One that is not wanted any
// more is not heard.
func TestNetManyInterfaces(t *testing.T) {
	c := newCouple(t)
	r := role{LSR: 2, V4: b4, V6: b6, Link: "eth0"}
	for i := range 25 {
		name := fmt.Sprint("more", i)
		if out, err := c.b.Run("ip", "link", "add", name, "up", "type", "bridge"); err != nil {
			t.Fatal(out)
		}
		r.More = append(r.More, name)
	}
	b := c.play(c.b, r)
	c.play(c.a, role{LSR: 1, V4: a4, V6: a6, Link: "eth0"})
	c.says(b, `hello 1.1.1.1:0 from 10.0.0.1 by "eth0"`)
	c.says(b, `hello 1.1.1.1:0 from fe80:`)
	if out := b.Output(); strings.Contains(out, "interfaces:") {
		t.Error(out)
	}
	for family, joined := range map[string]string{"-4": "224.0.0.2", "-6": "ff02::2"} {
		if out, err := c.b.Run("ip", family, "maddr", "show"); err != nil || strings.Count(out, joined) < 26 {
			t.Errorf("%v of %v by less than 26 interfaces: %v\n%s", joined, family, err, out)
		}
	}
}

// TestNetInterfaceGoes: where LDP runs no more hellos are not heard, and the group is left.
func TestNetInterfaceGoes(t *testing.T) {
	c := newCouple(t)
	b := c.play(c.b, role{LSR: 2, V4: b4, Link: "eth0", Stops: true})
	c.play(c.a, role{LSR: 1, V4: a4, Link: "eth0"})
	c.says(b, "stops <nil>")
	time.Sleep(100 * time.Millisecond) // for what was on its way
	before := b.Output()
	time.Sleep(500 * time.Millisecond)
	if out := b.Output(); out != before {
		t.Error(out)
	}
	if out, err := c.b.Run("ip", "-4", "maddr", "show", "dev", "eth0"); err != nil || strings.Contains(out, "224.0.0.2") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestNetWrongHellos: one that cannot be decoded is handed over where it has come as link hellos do, to all routers of a link. From
// elsewhere it may be anybody's.
func TestNetWrongHellos(t *testing.T) {
	for name, x := range map[string]struct {
		to    netip.Addr
		taken bool
	}{"to all routers": {discovery.AllRouters4, true}, "to one alone": {b4, false}} {
		t.Run(name, func(t *testing.T) {
			c := newCouple(t)
			b := c.play(c.b, role{LSR: 2, V4: b4, Link: "eth0"})
			c.play(c.a, role{LSR: 1, V4: a4, Forged: x.to, Target: b4})
			c.says(b, "targeted true") // a few have come
			if x.taken {
				c.says(b, `wrong hello by "eth0"`)
				return
			}
			time.Sleep(300 * time.Millisecond)
			if out := b.Output(); strings.Contains(out, "wrong hello") {
				t.Error(out)
			}
		})
	}
}

// TestNetSecrets: with the same secret a session comes about, over both families; with another one, or none, it does not.
func TestNetSecrets(t *testing.T) {
	for name, x := range map[string]struct {
		from, to      netip.Addr
		secret, known string
		works         bool
	}{
		"IPv4":                                  {a4, b4, "tell nobody", "tell nobody", true},
		"IPv6":                                  {a6, b6, "tell nobody", "tell nobody", true},
		"another secret":                        {a4, b4, "tell anybody", "tell nobody", false},
		"unsigned":                              {a4, b4, "", "tell nobody", false},
		"signed for one who knows of no secret": {a4, b4, "tell nobody", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCouple(t)
			b := c.play(c.b, role{LSR: 2, V4: b4, V6: b6, Known: x.known, From: x.from})
			a := c.play(c.a, role{LSR: 1, V4: a4, V6: a6, Peer: x.to, Secret: x.secret})
			if x.works {
				c.says(a, "received 3 of 2.2.2.2:0")
				return
			}
			time.Sleep(3 * time.Second) // a SYN is sent again after one
			if out := a.Output() + b.Output(); strings.Contains(out, "connected") || strings.Contains(out, "accepted") {
				t.Errorf("there is a session:\n%s", out)
			}
		})
	}
}

// TestNetStrangerWithoutSecret: who connected before its secret was known gets no further without it.
func TestNetStrangerWithoutSecret(t *testing.T) {
	c := newCouple(t)
	b := c.play(c.b, role{LSR: 2, V4: b4, OnAccept: "tell nobody"})
	a := c.play(c.a, role{LSR: 1, V4: a4, Peer: b4})
	c.says(b, "protected <nil>")
	time.Sleep(2 * time.Second)
	if a, b := a.Output(), b.Output(); strings.Contains(a, "received 3 of") || strings.Contains(b, "received 3 of") {
		t.Errorf("what is not signed is taken:\n%s\n%s", a, b)
	}
}

// TestNetGTSM: who is on the link gets through with 255 hops; one whose packets had fewer does not.
func TestNetGTSM(t *testing.T) {
	for _, family := range []struct{ from, to netip.Addr }{{a4, b4}, {a6, b6}} {
		for _, far := range []bool{false, true} {
			t.Run(fmt.Sprint(family.to, " far ", far), func(t *testing.T) {
				c := newCouple(t)
				b := c.play(c.b, role{LSR: 2, V4: b4, V6: b6, OnlyNearby: true})
				a := c.play(c.a, role{LSR: 1, V4: a4, V6: a6, Peer: family.to, GTSM: !far})
				c.says(b, "nearby <nil>")
				if !far {
					c.says(b, "received 3 of 1.1.1.1:0")
					return
				}
				time.Sleep(2 * time.Second)
				if out := b.Output(); strings.Contains(out, "received 3 of") {
					t.Errorf("a far one is heard:\n%s%s", a.Output(), out)
				}
			})
		}
	}
}
