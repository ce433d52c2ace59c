package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
)

var (
	far4    = netip.MustParseAddr("10.0.0.9")
	far6    = netip.MustParseAddr("2001:db8::9")
	friends = []netip.Prefix{netip.MustParsePrefix("10.0.0.8/29"), netip.MustParsePrefix("2001:db8::8/125")}
)

// inUDP is labels and what is below them in UDP, from a source port, with a class of the outer header.
func inUDP(src, dst netip.Addr, port uint16, tos byte, ip []byte, labels ...uint32) packet {
	b := binary.BigEndian.AppendUint16(nil, port)
	b = binary.BigEndian.AppendUint16(b, 6635)
	b = binary.BigEndian.AppendUint16(b, uint16(8+4*len(labels)+len(ip)))
	b = append(b, 0, 0)
	for _, l := range labels {
		b = binary.BigEndian.AppendUint32(b, l)
	}
	p := packet{src: src.String(), dst: dst.String(), proto: 17, tos: tos, ttl: 64, payload: append(b, ip...)}
	if src.Is4() {
		p.fragment = dontFragment
	}
	return p
}

// udp is a hop into UDP.
func udp(far netip.Addr, label uint32) Hop {
	return Hop{Interface: 7, How: UDP, Label: label, Tunnel: far, To: next, From: here, MTU: 1500}
}

// portOf is the source port of a frame in UDP, which depends on the flow.
func portOf(frame []byte, far netip.Addr) uint16 {
	if far.Is4() {
		return binary.BigEndian.Uint16(frame[14+20:])
	}
	return binary.BigEndian.Uint16(frame[14+40:])
}

// selves are the ends of tunnels, by the far one.
var selves = map[netip.Addr]netip.Addr{far4: self4, far6: self6}

// everyPacket are packets of both families, with all of a class.
func everyPacket() map[string]packet {
	return map[string]packet{
		"IPv4": {src: "10.1.0.12", dst: "192.0.2.80", proto: 17, tos: 0xba, ttl: 64, payload: make([]byte, 40)}, // EF, ECT(0)
		"IPv6": {src: "2001:db8:1::12", dst: "2001:db8::80", proto: 17, tos: 0xb9, ttl: 64, payload: make([]byte, 41)},
	}
}

// A user's packet, and one with a label, leave in UDP to the far end: of either family in either.
func TestNetLabelsLeaveInUDP(t *testing.T) {
	f := open(t)
	for far, self := range selves {
		p := plan(t, map[steer.Owner]string{1: "0.0.0.0/0.0.0.0"})
		set(t, f, State{
			VIPs: map[netip.Addr]*steer.Plan{vip4: p, vip6: p}, Trees: map[steer.Owner][]Hop{1: {udp(far, 100)}},
			Labels: map[uint32][]Hop{200: {udp(far, 300)}},
		})
		for name, in := range everyPacket() {
			ecn := in.tos & 3
			for what, c := range map[string]struct {
				in  []byte
				out func(port uint16) packet
			}{
				"pushed": {frame(in.ip()), func(port uint16) packet {
					return inUDP(self, far, port, 5<<5|ecn, in.aged(63).ip(), entry(100, 5, true, 63))
				}},
				"swapped": {frame(in.ip(), entry(200, 3, true, 50)), func(port uint16) packet {
					return inUDP(self, far, port, 3<<5|ecn, in.ip(), entry(300, 3, true, 49))
				}},
				"swapped above another": {frame(in.ip(), entry(200, 3, false, 50), entry(7, 0, true, 9)), func(port uint16) packet {
					return inUDP(self, far, port, 3<<5, in.ip(), entry(300, 3, false, 49), entry(7, 0, true, 9))
				}},
			} {
				t.Run(fmt.Sprintf("%s in UDP to %v, %s", name, far, what), func(t *testing.T) {
					verdict, out := give(t, f.objects.FastCore, c.in)
					if verdict != redirect || len(out) < 60 {
						t.Fatalf("verdict %d, %x", verdict, out)
					}
					port := portOf(out, far)
					if want := sent(c.out(port).ip()); port < 49152 || !bytes.Equal(out, want) {
						t.Errorf("from port %d\n got %x\nwant %x", port, out, want)
					}
				})
			}
		}
	}
	got, err := f.Counters()
	if want := (Counters{Pushed: 4, Swapped: 8, Tunneled: 12}); err != nil || got != want {
		t.Errorf("counters %+v, %v, want %+v", got, err, want)
	}
}

// What comes in UDP is what came with its label: swapped, popped, sent on into another tunnel, or given to this host. So it is at interfaces
// toward users, too.
func TestNetLabelsComeInUDP(t *testing.T) {
	f := open(t)
	set(t, f, State{Labels: map[uint32][]Hop{
		100: {{Interface: 7, How: Label, Label: 200, To: next, From: here, MTU: 1504}},
		101: {{Interface: 7, How: Bare, To: next, From: here, MTU: 1500}},
		102: {{How: Local, Interface: 1}},
		103: {udp(far6, 300)},
		104: {udp(far4, 300)},
	}})
	for far, self := range selves {
		for name, in := range everyPacket() {
			ip, ecn := in.ip(), in.tos&3
			for what, c := range map[string]struct {
				in      packet
				verdict uint32
				out     func(out []byte) []byte
			}{
				"swapped": {inUDP(far, self, 50000, 0, ip, entry(100, 5, true, 50)), redirect, func([]byte) []byte { return sent(ip, entry(200, 5, true, 49)) }},
				"swapped above another": {inUDP(far, self, 50000, 0, ip, entry(100, 5, false, 50), entry(7, 0, true, 9)), redirect, func([]byte) []byte {
					return sent(ip, entry(200, 5, false, 49), entry(7, 0, true, 9))
				}},
				"popped":            {inUDP(far, self, 50000, 0, ip, entry(101, 5, true, 50)), redirect, func([]byte) []byte { return sent(in.aged(49).ip()) }},
				"for this host":     {inUDP(far, self, 50000, 0, ip, entry(102, 5, true, 50)), pass, func([]byte) []byte { return frame(in.aged(50).ip()) }},
				"at its last hop":   {inUDP(far, self, 50000, 0, ip, entry(102, 5, true, 1)), pass, func([]byte) []byte { return frame(in.aged(1).ip()) }},
				"congested":         {inUDP(far, self, 50000, 3, ip, entry(102, 5, true, 50)), pass, func([]byte) []byte { return frame(marked(in.aged(50), 3).ip()) }},
				"ECT(1) is told":    {inUDP(far, self, 50000, 1, ip, entry(102, 5, true, 50)), pass, func([]byte) []byte { return frame(marked(in.aged(50), 1).ip()) }},
				"ECT(0) is no news": {inUDP(far, self, 50000, 2, ip, entry(102, 5, true, 50)), pass, func([]byte) []byte { return frame(in.aged(50).ip()) }},
				"into IPv6 again": {inUDP(far, self, 50000, 0, ip, entry(103, 5, true, 50)), redirect, func(out []byte) []byte {
					return sent(inUDP(self6, far6, portOf(out, far6), 5<<5|ecn, ip, entry(300, 5, true, 49)).ip())
				}},
				"into IPv4 again": {inUDP(far, self, 50000, 0, ip, entry(104, 5, true, 50)), redirect, func(out []byte) []byte {
					return sent(inUDP(self4, far4, portOf(out, far4), 5<<5|ecn, ip, entry(300, 5, true, 49)).ip())
				}},
			} {
				t.Run(fmt.Sprintf("%s in UDP from %v, %s", name, far, what), func(t *testing.T) {
					verdict, out := give(t, f.objects.FastEdge, frame(c.in.ip()))
					if want := c.out(out); verdict != c.verdict || !bytes.Equal(out, want) {
						t.Errorf("verdict %d, want %d\n got %x\nwant %x", verdict, c.verdict, out, want)
					}
				})
			}
		}
	}
	got, err := f.Counters()
	if want := (Counters{Swapped: 16, Popped: 4, Tunneled: 8, Untunneled: 40, Local: 20}); err != nil || got != want {
		t.Errorf("counters %+v, %v, want %+v", got, err, want)
	}
	// The same label without UDP.
	in := everyPacket()["IPv4"]
	if verdict, out := give(t, f.objects.FastCore, frame(in.ip(), entry(102, 5, true, 50))); verdict != pass || !bytes.Equal(out, frame(in.aged(50).ip())) {
		t.Errorf("verdict %d, %x", verdict, out)
	}
}

// marked is a packet with another ECN.
func marked(p packet, ecn byte) packet { p.tos = p.tos&^3 | ecn; return p }

// What is no label in UDP for this router, or from somebody who may not send it, does no harm.
func TestNetWhatIsWrongInUDP(t *testing.T) {
	f := open(t)
	set(t, f, State{Labels: map[uint32][]Hop{
		100: {{Interface: 7, How: Label, Label: 200, To: next, From: here, MTU: 1504}}, 102: {{How: Local, Interface: 1}},
	}})
	four := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 17, ttl: 60, payload: make([]byte, 40)}
	well := entry(100, 0, true, 50)
	stranger4, stranger6 := netip.MustParseAddr("10.0.0.16"), netip.MustParseAddr("2001:db8::10")
	change := func(p packet, f func(*packet)) packet { f(&p); return p }
	type wrong struct {
		in      []byte
		verdict uint32
		count   Counters
	}
	cases := map[string]wrong{}
	for far, self := range selves {
		stranger := map[netip.Addr]netip.Addr{far4: stranger4, far6: stranger6}[far]
		in := inUDP(far, self, 50000, 0, four.ip(), well)
		inFrame := func(p packet) []byte { return frame(p.ip()) }
		maps.Copy(cases, map[string]wrong{
			"a stranger to " + self.String():       {inFrame(inUDP(stranger, self, 50000, 0, four.ip(), well)), drop, Counters{Stranger: 1}},
			"not for this router, " + far.String(): {inFrame(inUDP(far, far, 50000, 0, four.ip(), well)), pass, Counters{}},
			"another port of " + self.String(): {inFrame(change(in, func(p *packet) {
				p.payload = slices.Clone(p.payload)
				p.payload[3]++
			})), pass, Counters{}},
			"TCP to " + self.String():          {inFrame(change(in, func(p *packet) { p.proto = 6 })), pass, Counters{}},
			"no label to " + self.String():     {inFrame(inUDP(far, self, 50000, 0, nil)), drop, Counters{Malformed: 1}},
			"half a label to " + self.String(): {inFrame(inUDP(far, self, 50000, 0, []byte{0, 6})), drop, Counters{Malformed: 1}},
			"longer than it is, to " + self.String(): {inFrame(change(in, func(p *packet) {
				p.payload = slices.Clone(p.payload)
				p.payload[4] = 1
			})), drop, Counters{Malformed: 1}},
			"shorter than a label, to " + self.String(): {inFrame(change(in, func(p *packet) {
				p.payload = slices.Clone(p.payload)
				p.payload[5] = 11
			})), drop, Counters{Malformed: 1}},
			"label 0 to " + self.String():                        {inFrame(inUDP(far, self, 50000, 0, four.ip(), entry(0, 0, true, 50))), drop, Counters{Malformed: 1}},
			"label 15 to " + self.String():                       {inFrame(inUDP(far, self, 50000, 0, four.ip(), entry(15, 0, true, 50))), drop, Counters{Malformed: 1}},
			"no IP to " + self.String():                          {inFrame(inUDP(far, self, 50000, 0, []byte("this is no IP packet, though long"), entry(102, 0, true, 50))), drop, Counters{Untunneled: 1, Malformed: 1}},
			"half a header to " + self.String():                  {inFrame(inUDP(far, self, 50000, 0, four.ip()[:19], entry(102, 0, true, 50))), drop, Counters{Untunneled: 1, Malformed: 1}},
			"congested, and cannot say so, to " + self.String():  {inFrame(inUDP(far, self, 50000, 3, four.ip(), well)), drop, Counters{Congested: 1}},
			"congested, and who knows what, to " + self.String(): {inFrame(inUDP(far, self, 50000, 3, []byte("deep"), entry(100, 0, false, 50), well)), drop, Counters{Congested: 1}},
			"half of UDP to " + self.String():                    {frame(in.ip())[:14+len(in.ip())-len(in.payload)+6], pass, Counters{}},
		})
	}
	in := inUDP(far4, self4, 50000, 0, four.ip(), well)
	cases["the first of fragments"] = wrong{frame(change(in, func(p *packet) { p.fragment = 0x2000 }).ip()), drop, Counters{Malformed: 1}}
	cases["a later fragment"] = wrong{frame(change(in, func(p *packet) { p.fragment = 185 }).ip()), pass, Counters{}}
	cases["the last of fragments of IPv6"] = wrong{frame(packet{src: far6.String(), dst: self6.String(), proto: 44, ttl: 64, payload: slices.Concat([]byte{17, 0, 0, 0, 0, 0, 0, 1}, in.payload)}.ip()), pass, Counters{}}
	var before Counters
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		c := cases[name]
		t.Run(name, func(t *testing.T) {
			verdict, out := give(t, f.objects.FastCore, c.in)
			if verdict != c.verdict || verdict == pass && !bytes.Equal(out, c.in) {
				t.Errorf("verdict %d, want %d\n got %x\nfrom %x", verdict, c.verdict, out, c.in)
			}
			now, err := f.Counters()
			if err != nil {
				t.Fatal(err)
			}
			got := Counters{Malformed: now.Malformed - before.Malformed, Stranger: now.Stranger - before.Stranger, Congested: now.Congested - before.Congested, Untunneled: now.Untunneled - before.Untunneled}
			if before = now; got != c.count {
				t.Errorf("counted %+v, want %+v", got, c.count)
			}
		})
	}
	// More than one label for this host, one whose TTL is over, and one that nobody was given here, are left to the tables, out of UDP.
	for _, labels := range [][]uint32{{entry(102, 0, false, 50), entry(7, 0, true, 9)}, {entry(102, 0, true, 0)}, {entry(999, 0, true, 9)}, {entry(100, 0, true, 1)}} {
		verdict, out := give(t, f.objects.FastCore, frame(inUDP(far4, self4, 50000, 0, four.ip(), labels...).ip()))
		if want := frame(four.ip(), labels...); verdict != pass || !bytes.Equal(out, want) {
			t.Errorf("labels %x: verdict %d\n got %x\nwant %x", labels, verdict, out, want)
		}
	}
}

// Nobody is taken where nobody may send, and who may is another after a restart.
func TestNetSourcesOfUDP(t *testing.T) {
	pins := testnet.New(t).BPFFS()
	in := frame(inUDP(far4, self4, 50000, 0, everyPacket()["IPv4"].ip(), entry(102, 0, true, 50)).ip())
	for _, c := range []struct {
		sources []netip.Prefix
		verdict uint32
	}{
		{nil, drop}, {friends, pass}, {[]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, pass}, {[]netip.Prefix{netip.MustParsePrefix("::/0")}, pass},
		{[]netip.Prefix{netip.MustParsePrefix("10.0.0.8/32"), netip.MustParsePrefix("2001:db8::/32")}, drop}, {nil, drop},
	} {
		f, err := Open(Options{Owners: 1 << 8, Labels: 1 << 8, Hops: 1 << 8, Self4: self4, Self6: self6, Sources: c.sources, Pins: pins + "/fastpath"})
		if err != nil {
			t.Fatal(err)
		}
		set(t, f, State{Labels: map[uint32][]Hop{102: {{How: Local, Interface: 1}}}})
		if verdict, _ := give(t, f.objects.FastCore, in); verdict != c.verdict {
			t.Errorf("sources %v: verdict %d, want %d", c.sources, verdict, c.verdict)
		}
		if err := f.Close(true); err != nil {
			t.Fatal(err)
		}
	}
	if err := Remove(pins + "/fastpath"); err != nil {
		t.Fatal(err)
	}
}

// A user keeps its source port, and users have many.
func TestNetUsersInUDPHavePorts(t *testing.T) {
	f := open(t)
	s := halves(t)
	s.Trees[1] = []Hop{udp(far4, 100)}
	s.Labels = map[uint32][]Hop{200: {udp(far4, 300)}}
	set(t, f, s)
	pushed, swapped, ways := map[uint16]bool{}, map[uint16]bool{}, [8]int{}
	for user := range 1024 {
		ip := packet{src: netip.AddrFrom4([4]byte{10, 1, byte(user >> 7), byte(2 * user)}).String(), dst: "192.0.2.80", proto: 17, ttl: 64, payload: make([]byte, 20)}.ip()
		_, out := give(t, f.objects.FastEdge, frame(ip))
		_, again := give(t, f.objects.FastEdge, frame(ip))
		if !bytes.Equal(out, again) {
			t.Fatalf("user %d goes two ways", user)
		}
		pushed[portOf(out, far4)] = true
		ways[portOf(out, far4)%8]++
		_, out = give(t, f.objects.FastCore, frame(ip, entry(200, 0, true, 9)))
		swapped[portOf(out, far4)] = true
	}
	for what, ports := range map[string]map[uint16]bool{"pushed": pushed, "swapped": swapped} {
		if n := len(ports); n < 900 {
			t.Errorf("%s: 1,024 users have %d ports", what, n)
		}
	}
	for way, n := range ways {
		if n < 64 || n > 192 {
			t.Errorf("%d of 1,024 users go way %d of 8", n, way)
		}
	}
}

// The sender is told what fits into the tunnel.
func TestNetTooLongForUDP(t *testing.T) {
	f := open(t)
	for far, overhead := range map[netip.Addr]int{far4: 32, far6: 52} {
		p := plan(t, map[steer.Owner]string{1: "0.0.0.0/0.0.0.0"})
		set(t, f, State{
			VIPs: map[netip.Addr]*steer.Plan{vip4: p, vip6: p}, Trees: map[steer.Owner][]Hop{1: {udp(far, 100)}}, Labels: map[uint32][]Hop{200: {udp(far, 300)}},
		})
		for _, labels := range [][]uint32{nil, {entry(200, 0, true, 9)}} {
			for more := range 2 {
				size := 1500 - overhead + more
				four := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 6, ttl: 64, fragment: dontFragment, payload: make([]byte, size-20)}
				six := packet{src: "2001:db8:1::12", dst: "2001:db8::80", proto: 6, ttl: 64, payload: make([]byte, size-40)}
				for _, in := range []packet{four, six} {
					var out []byte
					told := toldBy(t, f)
					testnet.Eventually(t, 5*time.Second, func() bool { // so many are told each second
						var verdict uint32
						verdict, out = give(t, f.objects.FastCore, frame(in.ip(), labels...))
						return verdict == redirect
					}, "an answer")
					switch {
					case more == 0:
						if toldBy(t, f) != told || len(out) != 14+1500 {
							t.Errorf("%d bytes to %v: %d come out", size, far, len(out))
						}
					case in.src == four.src:
						checkError(t, out, in, 3, 4, uint32(1500-overhead))
					default:
						checkError(t, out, in, 2, 0, uint32(1500-overhead))
					}
				}
			}
		}
	}
}

func toldBy(t *testing.T, f *Fastpath) uint64 {
	c, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c.Told
}
