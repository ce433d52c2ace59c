package interop

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// hostile is a tdpd that an intruder has a session with.
func hostile(t *testing.T, change ...func(*role)) (*line, *ours, *intruder) {
	l := newLine(t, 9, 1)
	o, i := l.tdpd(1, change...), l.intruder(0, 1, "r")
	l.eventually(func() bool { return strings.Contains(o.Output(), "adjacency is up") }, "it hears the intruder")
	i.session(i.proposal())
	return l, o, i
}

// alive checks that the process goes on.
func (o *ours) alive() {
	o.line.t.Helper()
	if o.Ended() {
		o.line.t.Fatalf("it has ended: %v", o.Wait())
	}
}

// TestVMWrongMessages: each way in which a message can be wrong is answered by the notification of RFC 5036 section 3.5.1.2, and ends the
// session where that says so, and nowhere else. What comes in a stream that cannot be framed ends it.
func TestVMWrongMessages(t *testing.T) {
	_, o, i := hostile(t)
	good := unhex(t, "0201 0004 00000007")
	rows := table(t, "refused.txt")
	if len(rows) < 90 {
		t.Fatalf("%d lines", len(rows))
	}
	for _, row := range rows {
		body := append(append([]byte{}, good...), unhex(t, row[0])...)
		i.send(framed(i.id, body))
		n, err := i.told()
		if err != nil || n.Status.Code.String() != row[1] || n.Status.Fatal != (row[2] == "1") {
			t.Errorf("%s: %v, E bit %v, %v; want %s, E bit %s", row[4], n.Status.Code, n.Status.Fatal, err, row[1], row[2])
		}
		if goesOn := row[2] == "0"; goesOn && !i.answers() || !goesOn && !i.ended() {
			t.Errorf("%s: the session is to go on: %v; it does not do so", row[4], goesOn)
		}
		if row[2] == "1" || t.Failed() {
			i.session(i.proposal())
		}
	}
	for _, row := range table(t, "refused-streams.txt") {
		i.send(unhex(t, row[0]))
		if row[1] != "-" {
			if n, err := i.told(); err != nil || n.Status.Code.String() != row[1] || !i.ended() {
				t.Errorf("%s: %v, %v; want %s and the end", row[2], n.Status.Code, err, row[1])
			}
		}
		i.session(i.proposal()) // the other side closes in the midst of a PDU where it waits for more
	}
	o.alive()
}

// framed is a PDU of that body.
func framed(id wire.Identifier, body []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, wire.Version)
	b = binary.BigEndian.AppendUint16(b, uint16(6+len(body)))
	b = binary.BigEndian.AppendUint16(append(b, id.LSR[:]...), id.Space)
	return append(b, body...)
}

// TestVMWrongPeers: what is wrong otherwise than by its bytes.
func TestVMWrongPeers(t *testing.T) {
	l, o, i := hostile(t)
	label := func(p netip.Prefix, n wire.Label) wire.LabelMapping {
		return wire.LabelMapping{FEC: wire.FEC{wire.Prefix{Prefix: p}}, Label: n}
	}
	refused := func(what string, status wire.StatusCode) {
		t.Helper()
		if n, err := i.told(); err != nil || n.Status.Code != status || !i.ended() {
			t.Errorf("%s: %v, %v; want %v and the end", what, n.Status.Code, err, status)
		}
	}
	fine := func(what string) {
		t.Helper()
		if !i.answers() {
			t.Errorf("%s ends the session", what)
			i.session(i.proposal())
		}
	}

	i.say(wire.UnknownMessage{MessageType: 0x3f00, Body: []byte{1, 2, 3}})
	fine("an unknown message with U bit")
	i.say(wire.KeepAlive{Head: wire.Head{Others: []wire.TLV{{Type: 0x3abc, Unknown: true, Forward: true, Value: []byte{1}}}}})
	fine("an unknown TLV with U and F bit")
	whole := append([]byte{0x3f, 0xff, 0x0f, 0xe4}, make([]byte, 0xfe4)...) // an unknown TLV that fills its PDU
	i.send(framed(i.id, append([]byte{0x02, 0x01, 0x0f, 0xec, 0, 0, 0, 42}, whole...)))
	if n, err := i.told(); err != nil || n.Status.Code != wire.StatusUnknownTLV {
		t.Errorf("a large unknown TLV: %v, %v", n.Status.Code, err)
	}
	fine("a large unknown TLV")
	i.say(label(l.host4(0), wire.LabelExplicitNullIPv6))
	i.hears("the release of a label that cannot be", func(m wire.Message) bool { _, is := m.(wire.LabelRelease); return is })
	i.say(label(netip.MustParsePrefix("fe80::/64"), 100), label(netip.MustParsePrefix("224.0.0.0/4"), 100), label(netip.MustParsePrefix("0.0.0.0/0"), 100))
	fine("a binding of what cannot be a FEC")
	i.say(wire.LabelWithdraw{FEC: wire.FEC{wire.Prefix{Prefix: l.host4(1)}}}, wire.LabelRelease{FEC: wire.FEC{wire.Wildcard{}}}, wire.LabelAbortRequest{FEC: wire.FEC{wire.Prefix{Prefix: l.host4(1)}}, RequestID: 77})
	fine("a withdrawal of what was never bound")

	i.id.LSR[3]++
	i.say(wire.KeepAlive{})
	i.id.LSR[3]--
	refused("another LDP identifier", wire.StatusBadLDPIdentifier)
	i.connect()
	p := i.proposal()
	p.Receiver.LSR[0]++
	i.say(p)
	refused("meant for another one", wire.StatusRejectedNoHello)
	i.connect()
	i.say(wire.KeepAlive{})
	refused("no Initialization", wire.StatusShutdown)
	i.session(i.proposal())
	i.say(i.proposal())
	refused("a second Initialization", wire.StatusShutdown)

	p = i.proposal()
	p.KeepAliveTime = 2
	i.session(p)
	i.send([]byte{0, 1, 0, 100, 1})
	refused("half a PDU, and silence", wire.StatusKeepAliveTimerExpired)
	p.KeepAliveTime = 0xffff
	i.session(p)
	fine("the longest keepalive time")

	former := i.conn
	i.conn = nil
	i.session(i.proposal())
	former.Close()
	fine("the end of the connection before")
	for range 20 {
		i.connect()
	}
	i.session(i.proposal())
	fine("many connections")
	o.alive()
}

// TestVMFlood: of a peer's bindings as many are kept as it may have, the others are released, and the session goes on.
func TestVMFlood(t *testing.T) {
	const most, beyond, each = 100_000, 500, 100
	_, o, i := hostile(t, func(r *role) { r.Quiet = true })
	start := time.Now()
	for n := 0; n < most+beyond; n += each {
		m := wire.LabelMapping{Label: wire.Label(1000 + n)}
		for k := range each {
			at := n + k
			m.FEC = append(m.FEC, wire.Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(at >> 16), byte(at >> 8), byte(at)}), 32)})
		}
		i.say(m)
	}
	for n := range beyond {
		i.hears("a release", func(m wire.Message) bool {
			r, is := m.(wire.LabelRelease)
			if is && (r.Status == nil || r.Status.Code != wire.StatusNoLabelResources) {
				t.Errorf("release %d: %+v", n, r)
			}
			return is
		})
	}
	if !i.answers() {
		t.Error("the session has ended")
	}
	t.Logf("%d bindings in %v", most+beyond, time.Since(start))
	o.alive()
}

// TestVMDeafPeer: one that asks and asks, and reads nothing of the answers, loses its session before it takes much memory. The others keep
// theirs.
func TestVMDeafPeer(t *testing.T) {
	l := newLine(t, 9, 1, 5)
	o, other, i := l.tdpd(1), l.tdpd(2), l.intruder(0, 1, "r")
	other.meets(1)
	l.eventually(func() bool { return strings.Contains(o.Output(), "adjacency is up") }, "it hears the deaf one")
	i.session(i.proposal())
	go func(conn net.Conn) {
		wildcard := wire.LabelRequest{Head: wire.Head{ID: 1}, FEC: wire.FEC{wire.TypedWildcard{Family: wire.IPv4}}}
		for ended := false; !ended; {
			batch := []wire.Message{wildcard}
			for n := range uint32(100) {
				batch = append(batch, wire.LabelRequest{Head: wire.Head{ID: 2 + n}, FEC: wire.FEC{wire.Prefix{Prefix: l.host4(1)}}})
			}
			b, err := wire.AppendPDU(nil, i.id, 0, batch...)
			if err == nil {
				_, err = conn.Write(b)
			}
			ended = err != nil
		}
	}(i.conn)
	l.eventually(func() bool { // before it is up it is down, too
		_, up := o.sessions(0)
		return !up && strings.Contains(o.Output(), "takes too little")
	}, "the session ends, and it says why")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", o.PID()))
	most := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if err != nil || most == nil {
		t.Fatalf("memory: %v\n%s", err, status)
	}
	if n, _ := strconv.Atoi(string(most[1])); n > 256<<10 {
		t.Errorf("%d MiB of memory", n>>10)
	}
	if begun, up := o.sessions(2); begun != 1 || !up {
		t.Errorf("%d sessions with the other, one now: %v", begun, up)
	}
	o.alive()
}

// TestVMTwoOfOneID: of two routers with one LSR id the one that was there first keeps its session.
func TestVMTwoOfOneID(t *testing.T) {
	l := newLine(t, 9, 1, 5)
	o, i := l.tdpd(1), l.intruder(0, 1, "r")
	l.eventually(func() bool { return strings.Contains(o.Output(), "adjacency is up") }, "it hears the first one")
	i.session(i.proposal())
	l.greets(2, "l", i.id, l.id(2), 15)
	l.eventually(func() bool { return strings.Contains(o.Output(), "two routers with one LSR id") }, "it says so")
	time.Sleep(2 * time.Second) // of hellos
	if begun, up := o.sessions(0); begun != 1 || !up || !i.answers() {
		t.Errorf("%d sessions with the first one, one now: %v", begun, up)
	}
	o.alive()
}

// TestVMHoldTimes: hellos with odd hold times keep an adjacency up, 0 for the default of 15 seconds, the longest for as long as we
// hold; it ends when they cease, and comes back with them.
func TestVMHoldTimes(t *testing.T) {
	for name, x := range map[string]struct {
		ours, want time.Duration
		hold       uint16
	}{
		"the default": {20 * time.Second, 15 * time.Second, wire.HoldTimeDefault},
		"for ever":    {hold, hold, wire.HoldTimeInfinite},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, 9, 1)
			o := l.tdpd(1, func(r *role) { r.Config.Hello.LinkHold = x.ours })
			i := &intruder{line: l, at: 0, peer: 1, id: wire.Identifier{LSR: l.id(0).As4()}}
			stop := l.greets(0, "r", i.id, l.id(0), x.hold)
			l.eventually(func() bool { return strings.Contains(o.Output(), "adjacency is up") }, "it hears the intruder")
			i.session(i.proposal())
			time.Sleep(hold + hold/2)
			if begun, up := o.sessions(0); begun != 1 || !up || !i.answers() {
				t.Errorf("%d sessions, one now: %v", begun, up)
			}
			stop()
			silent := time.Now() // for a second at most
			if n, err := i.told(); err != nil || n.Status.Code != wire.StatusHoldTimerExpired || !i.ended() {
				t.Errorf("%v, %v", n.Status.Code, err)
			}
			if after := time.Since(silent); after < x.want-1500*time.Millisecond || after > x.want+1500*time.Millisecond {
				t.Errorf("it is held for %v, want %v", after, x.want)
			}
			l.greets(0, "r", i.id, l.id(0), x.hold)
			l.eventually(func() bool { return strings.Count(o.Output(), "adjacency is up") == 2 }, "it hears the intruder again")
			i.session(i.proposal())
			o.alive()
		})
	}
}

// TestVMForgedHellos: what anybody may send in a neighbor's name ends neither its adjacency nor its session: to one address alone, hellos
// that are wrong, that are of a link, or targeted with another preference; and on the link another router with its address.
func TestVMForgedHellos(t *testing.T) {
	l, o, i := hostile(t, func(r *role) { r.Config.Transport6 = netip.MustParseAddr("fd00:ffff::1") })
	from, to := netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("10.0.1.2")
	hello := func(change func(*wire.Hello)) []byte {
		h := wire.Hello{Head: wire.Head{ID: 1}, HelloParameters: wire.HelloParameters{HoldTime: 15}, IPv4Transport: l.id(0)}
		change(&h)
		b, err := wire.AppendPDU(nil, i.id, 0, h)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	unknown := hello(func(h *wire.Hello) { h.Preference = wire.PreferIPv4 })
	unknown[len(unknown)-4] = 0x50
	for range 3 {
		l.datagram(0, from, to, unknown)
		l.datagram(0, from, to, hello(func(h *wire.Hello) { h.HoldTime, h.IPv4Transport = 1, netip.MustParseAddr("10.99.0.1") }))
		l.datagram(0, from, to, hello(func(h *wire.Hello) { h.Targeted, h.RequestTargeted, h.Preference = true, true, wire.PreferIPv4 }))
		l.datagram(0, from, to, hello(func(h *wire.Hello) { h.Targeted, h.HoldTime = true, 1 }))
	}
	stranger := i.id
	stranger.LSR[3]++
	l.greets(0, "r", stranger, l.id(0), 1)
	l.eventually(func() bool { return strings.Contains(o.Output(), "which is that of") }, "it refuses another router with that address")
	time.Sleep(2 * time.Second)
	if begun, up := o.sessions(0); begun != 1 || !up || !i.answers() || strings.Contains(o.Output(), "adjacency is down") {
		t.Errorf("%d sessions, one now: %v", begun, up)
	}
	o.alive()
}
