package dataplane

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"testing"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
)

// odd and even are the users whose last address bit is 1 or 0.
var (
	odd  = portion.Set{Permit: []portion.Portion{portion.MustParse("0.0.0.1/0.0.0.1")}}
	even = portion.Set{Permit: []portion.Portion{portion.MustParse("0.0.0.0/0.0.0.1")}}
)

const evenUser = "10.1.0.12"

func agentServices(web, dns portion.Set) []AgentService {
	return []AgentService{
		{VIP: addr(testVIP), Group: addr(webGroup), Ports: []Port{tcp(80), tcp(443)}, Accept: portion.Union{web}},
		{VIP: addr(testVIP), Group: addr(dnsGroup), Ports: []Port{udp(53), tcp(53)}, Accept: portion.Union{dns}},
	}
}

// newAgent is an agent in a namespace of its own; nothing is at the other end of its interface.
func newAgent(t *testing.T, pathMTU int, services []AgentService) *agent {
	t.Helper()
	net := testnet.New(t)
	node := net.Node("server")
	net.Link(node, "eth0", "10.2.0.1/24", net.Node("other"), "eth0", "")
	var a *agent
	err := node.Do(func() (err error) {
		a, err = asUnit(loadAgentPlane, AgentConfig{Interface: "eth0", VIPDevice: "lo", PathMTU: pathMTU, Bpffs: filepath.Join(net.BPFFS(), "agent")})
		if err == nil {
			err = a.Set(services)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() {
		if err := node.Do(func() error { return a.Close(false) }); err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestNetAgentProgramTakesItsOwn(t *testing.T) {
	from := func(user string, proto uint8, payload []byte) packet {
		return packet{src: user, dst: webGroup, proto: proto, payload: payload}
	}
	answerTo := func(user string, proto uint8, payload []byte) []byte {
		return quote(packet{src: testVIP, dst: user, proto: proto, payload: payload})
	}
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	web := tcpSegment(1000, 80, 2, nil, "hello")
	answer := tcpSegment(80, 1000, 16, nil, "x")
	const router = evenUser // its own address is not accepted: it must not matter
	tests := []struct {
		name    string
		in      packet
		verdict uint32
		taken   bool
		want    AgentCounters
	}{
		{"own user", from(testUser, protoTCP, web), verdictNext, true, AgentCounters{Delivered: 1}},
		{"another's user", from(evenUser, protoTCP, web), verdictDrop, false, AgentCounters{NotMine: 1}},
		{"same user, other service", with(from(testUser, protoUDP, udpDatagram(1, 53, "q")), func(p *packet) { p.dst = dnsGroup }), verdictDrop, false, AgentCounters{NotMine: 1}},
		{"other service's user", with(from(evenUser, protoUDP, udpDatagram(1, 53, "q")), func(p *packet) { p.dst = dnsGroup }), verdictNext, true, AgentCounters{Delivered: 1}},
		{"udp without checksum", with(from(evenUser, protoUDP, udpDatagram(1, 53, "q")), func(p *packet) { p.dst, p.zeroCheck = dnsGroup, true }), verdictNext, true, AgentCounters{Delivered: 1}},
		{"other service's port", from(testUser, protoTCP, tcpSegment(1, 53, 2, nil, "")), verdictDrop, false, AgentCounters{NoPort: 1}},
		{"port of no service", from(testUser, protoTCP, tcpSegment(1, 81, 2, nil, "")), verdictDrop, false, AgentCounters{NoPort: 1}},
		{"protocol of no service", from(testUser, 47, make([]byte, 8)), verdictDrop, false, AgentCounters{NoPort: 1}},
		{"IP options", with(from(testUser, protoTCP, web), func(p *packet) { p.options = []byte{7, 7, 4, 0, 0, 0, 0, 0} }), verdictNext, true, AgentCounters{Delivered: 1}},
		{"echo", from(testUser, protoICMP, icmpMessage(8, 0, []byte("ping"))), verdictNext, true, AgentCounters{Delivered: 1}},
		{"error about our packet", from(router, protoICMP, icmpMessage(3, 4, answerTo(testUser, protoTCP, answer))), verdictNext, true, AgentCounters{Delivered: 1, ICMPErrors: 1}},
		{"error about another server's packet", from(testUser, protoICMP, icmpMessage(3, 4, answerTo(evenUser, protoTCP, answer))), verdictDrop, false, AgentCounters{NotMine: 1}},
		{"error about a port of no service", from(router, protoICMP, icmpMessage(3, 4, answerTo(testUser, protoTCP, tcpSegment(81, 1, 16, nil, "")))), verdictDrop, false, AgentCounters{NoPort: 1}},
		{"error without a quote", from(router, protoICMP, icmpMessage(3, 4, nil)), verdictDrop, false, AgentCounters{Malformed: 1}},
		{"too short", from(testUser, protoTCP, []byte{1}), verdictDrop, false, AgentCounters{Malformed: 1}},
		{"later fragment", with(from(testUser, protoUDP, []byte("abcdefgh")), func(p *packet) { p.offset = 185 }), verdictNext, true, AgentCounters{Delivered: 1, Fragments: 1}},
		{"another's later fragment", with(from(evenUser, protoUDP, []byte("abcdefgh")), func(p *packet) { p.offset = 185 }), verdictDrop, false, AgentCounters{NotMine: 1}},
		{"another group", with(from(testUser, protoTCP, web), func(p *packet) { p.dst = "239.1.1.1" }), verdictNext, false, AgentCounters{}},
		{"unicast", with(from(testUser, protoTCP, web), func(p *packet) { p.dst = "10.2.0.1" }), verdictNext, false, AgentCounters{}},
		{"VLAN tag", with(from(testUser, protoTCP, web), func(p *packet) { p.vlan = true }), verdictNext, false, AgentCounters{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAgent(t, 0, agentServices(odd, even))
			in := tt.in.frame()
			verdict, out := run(t, a.coll.Programs[agentProgAgentIngress], in)
			if verdict != tt.verdict {
				t.Errorf("verdict %#x, want %#x", verdict, tt.verdict)
			}
			wanted := tt.in
			if tt.taken {
				wanted.dst = testVIP
				tt.want.Bytes = uint64(len(in))
			}
			if want := wanted.frame(); !bytes.Equal(out, want) {
				t.Errorf("frame\n% x, want\n% x", out, want)
			}
			if got, err := a.Counters(); err != nil || got != tt.want {
				t.Errorf("counted %+v, error %v, want %+v", got, err, tt.want)
			}
		})
	}
}

// What comes to the VIP along the server's tree is whoever's the routers say; it is counted, and filtered by ports, like the rest.
func TestNetAgentProgramTakesTagged(t *testing.T) {
	service := AgentService{VIP: addr(testVIP), VIP6: addr("2001:db8::80"), Ports: []Port{tcp(80)}, Tagged: true, Accept: portion.Union{odd}, Leased: true}
	both := service
	both.Group = addr(webGroup)
	web, other := tcpSegment(1000, 80, 2, nil, "hello"), tcpSegment(1000, 81, 2, nil, "hello")
	for name, tt := range map[string]struct {
		service AgentService
		in      packet
		verdict uint32
		traffic string // that has counted it
	}{
		"anybody's":                  {service, packet{src: evenUser, dst: testVIP, proto: protoTCP, payload: web}, verdictNext, testVIP},
		"to another port":            {service, packet{src: testUser, dst: testVIP, proto: protoTCP, payload: other}, verdictDrop, ""},
		"group of nobody":            {service, packet{src: testUser, dst: webGroup, proto: protoTCP, payload: web}, verdictNext, ""},
		"with a group":               {both, packet{src: evenUser, dst: testVIP, proto: protoTCP, payload: web}, verdictNext, webGroup},
		"by the group":               {both, packet{src: testUser, dst: webGroup, proto: protoTCP, payload: web}, verdictNext, webGroup},
		"another's, by the group":    {both, packet{src: evenUser, dst: webGroup, proto: protoTCP, payload: web}, verdictDrop, ""},
		"port of none, by the group": {both, packet{src: testUser, dst: webGroup, proto: protoTCP, payload: other}, verdictDrop, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgent(t, 0, []AgentService{tt.service})
			verdict, out := run(t, a.coll.Programs[agentProgAgentIngress], tt.in.frame())
			if verdict != tt.verdict {
				t.Errorf("verdict %#x, want %#x", verdict, tt.verdict)
			}
			want := tt.in
			if tt.traffic != "" {
				want.dst = testVIP
			}
			if !bytes.Equal(out, want.frame()) {
				t.Errorf("frame\n% x, want\n% x", out, want.frame())
			}
			all, err := a.Traffic()
			if err != nil {
				t.Fatal(err)
			}
			for name, n := range all {
				if (name.String() == tt.traffic) != (n.Packets == 1 && n.Opened == 1) {
					t.Errorf("%v has counted %+v", name, n)
				}
			}
		})
	}
}

// While a tagged service gets a group, or loses it, no packet to the VIP is dropped: maps are written one after the other.
func TestNetTaggedServiceChangesItsName(t *testing.T) {
	with, without := agentServices(odd, even)[0], AgentService{VIP: addr(testVIP), Ports: []Port{tcp(80)}, Tagged: true}
	with.Tagged = true
	in := packet{src: evenUser, dst: testVIP, proto: protoTCP, payload: tcpSegment(1000, 80, 2, nil, "hello")}.frame()
	for _, now := range []AgentService{with, without} {
		a := newAgent(t, 0, []AgentService{now})
		for _, next := range []AgentService{with, without} { // the ports are the first that Set writes
			if err := a.coll.Maps[agentMapServices].Put(newPortMapKey(next.VIP, next.Ports[0]), next.name().As4()); err != nil {
				t.Fatal(err)
			}
			if verdict, _ := run(t, a.coll.Programs[agentProgAgentIngress], in); verdict != verdictNext {
				t.Errorf("from %s to %s: verdict %#x", now.name(), next.name(), verdict)
			}
		}
	}
}

func TestNetAgentProgramClampsMSS(t *testing.T) {
	const syn, synAck, ack = 0x02, 0x12, 0x10
	mss := func(n uint16) []byte { return binary.BigEndian.AppendUint16([]byte{2, 4}, n) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	nop, wscale, stamps := []byte{1}, []byte{3, 3, 7}, append([]byte{8, 10}, make([]byte, 8)...)
	from := func(port uint16, flags byte, options []byte) packet {
		return packet{src: testVIP, dst: testUser, proto: protoTCP, payload: tcpSegment(port, 1000, flags, options, "")}
	}
	otherHost := from(80, synAck, mss(1460))
	otherHost.src = "192.0.2.81"
	tests := []struct {
		name string
		in   packet
		want []byte // options after; nil: as before
	}{
		{"SYN-ACK", from(80, synAck, mss(1460)), mss(1360)},
		{"SYN", from(80, syn, mss(1460)), mss(1360)},
		{"behind other options", from(80, synAck, join(nop, wscale, stamps, nop, nop, mss(9000))), join(nop, wscale, stamps, nop, nop, mss(1360))},
		{"at an odd offset", from(80, synAck, join(wscale, mss(1460), nop)), join(wscale, mss(1360), nop)},
		{"last, behind NOPs", from(80, synAck, join(bytes.Repeat(nop, 36), mss(1460))), join(bytes.Repeat(nop, 36), mss(1360))},
		{"small already", from(80, synAck, mss(536)), nil},
		{"no MSS", from(80, synAck, join(nop, wscale)), nil},
		{"end of options before it", from(80, synAck, join([]byte{0}, mss(1460), []byte{0, 0, 0})), nil},
		{"option of length 0", from(80, synAck, join([]byte{3, 0}, mss(1460), []byte{0, 0})), nil},
		{"option that is too long", from(80, synAck, join([]byte{3, 255}, mss(1460), []byte{0, 0})), nil},
		{"MSS of a strange length", from(80, synAck, []byte{2, 3, 255, 1}), nil},
		{"no SYN", from(80, ack, mss(1460)), nil},
		{"port of no service", from(81, synAck, mss(1460)), nil},
		{"not the VIP", otherHost, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAgent(t, 1400, agentServices(odd, even))
			verdict, out := run(t, a.coll.Programs[agentProgAgentEgress], tt.in.frame())
			if verdict != verdictNext {
				t.Errorf("verdict %#x, want next", verdict)
			}
			want := tt.in
			if tt.want != nil {
				want.payload = bytes.Clone(tt.in.payload)
				copy(want.payload[20:], tt.want)
			}
			if !bytes.Equal(out, want.frame()) {
				t.Errorf("frame\n% x, want\n% x", out, want.frame())
			}
			counters, err := a.Counters()
			if clamped := tt.want != nil; err != nil || (counters.Clamped == 1) != clamped {
				t.Errorf("counted %+v, error %v, want clamped %t", counters, err, clamped)
			}
		})
	}
}
