package dataplane

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/manycast/manycast/internal/testnet"
	"golang.org/x/sys/unix"
)

// verdicts of a program on the hook (linux/pkt_cls.h).
const (
	verdictNext = 0xffffffff
	verdictDrop = 2
)

const (
	testVIP  = "192.0.2.80"
	webGroup = "239.80.80.80"
	dnsGroup = "239.53.53.53"
	testUser = "10.1.0.11"
)

func directorServices() []DirectorService {
	return []DirectorService{
		{VIP: addr(testVIP), Group: addr(webGroup), Ports: []Port{tcp(443), tcp(80)}},
		{VIP: addr(testVIP), Group: addr(dnsGroup), Ports: []Port{udp(53), tcp(53)}},
	}
}

// newDirector is a director on no interface.
func newDirector(t *testing.T, services []DirectorService) *director {
	t.Helper()
	config := DirectorConfig{Bpffs: filepath.Join(testnet.New(t).BPFFS(), "director"), FragmentsMax: 1024}
	d, err := asUnit(loadDirectorPlane, config)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { d.Close(false) })
	if err := d.write(services); err != nil {
		t.Fatal(err)
	}
	return d
}

// asUnit opens with the capabilities that the units give.
func asUnit[C, P any](open func(C) (P, error), config C) (plane P, err error) {
	err = testnet.WithCapabilities(func() (err error) {
		plane, err = open(config)
		return err
	}, unix.CAP_BPF, unix.CAP_NET_ADMIN)
	return plane, err
}

// run gives one frame to a program and returns its verdict and the frame after it.
func run(t *testing.T, p *ebpf.Program, frame []byte) (uint32, []byte) {
	t.Helper()
	out := make([]byte, len(frame)+256)
	opts := ebpf.RunOptions{Data: frame, DataOut: out}
	verdict, err := p.Run(&opts)
	if err != nil {
		t.Fatalf("run program: %v", err)
	}
	return verdict, opts.DataOut
}

func TestNetDirectorProgramFindsTheGroup(t *testing.T) {
	to := func(dst string, proto uint8, payload []byte) packet {
		return packet{src: testUser, dst: dst, proto: proto, payload: payload}
	}
	answer := func(proto uint8, payload []byte) []byte {
		return quote(packet{src: testVIP, dst: testUser, proto: proto, payload: payload})
	}
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	web, dns := tcpSegment(1000, 80, 2, nil, "hello"), udpDatagram(1000, 53, "question")
	tests := []struct {
		name    string
		in      packet
		group   string // "": left as it is
		verdict uint32
		want    DirectorCounters
	}{
		{"tcp", to(testVIP, protoTCP, web), webGroup, verdictNext, DirectorCounters{Rewritten: 1}},
		{"udp", to(testVIP, protoUDP, dns), dnsGroup, verdictNext, DirectorCounters{Rewritten: 1}},
		{"tcp on the other service's port", to(testVIP, protoTCP, tcpSegment(1000, 53, 2, nil, "")), dnsGroup, verdictNext, DirectorCounters{Rewritten: 1}},
		{"udp without checksum", with(to(testVIP, protoUDP, dns), func(p *packet) { p.zeroCheck = true }), dnsGroup, verdictNext, DirectorCounters{Rewritten: 1}},
		{"IP options", with(to(testVIP, protoTCP, web), func(p *packet) { p.options = []byte{7, 7, 4, 0, 0, 0, 0, 0} }), webGroup, verdictNext, DirectorCounters{Rewritten: 1}},
		{"echo", to(testVIP, protoICMP, icmpMessage(8, 0, []byte("ping"))), dnsGroup, verdictNext, DirectorCounters{Rewritten: 1}},
		{"frag needed", to(testVIP, protoICMP, icmpMessage(3, 4, answer(protoTCP, tcpSegment(80, 1000, 16, nil, "x")))), webGroup, verdictNext, DirectorCounters{Rewritten: 1, ICMPErrors: 1}},
		{"time exceeded", to(testVIP, protoICMP, icmpMessage(11, 0, answer(protoUDP, udpDatagram(53, 1000, "x")))), dnsGroup, verdictNext, DirectorCounters{Rewritten: 1, ICMPErrors: 1}},
		{"error about another's packet", to(testVIP, protoICMP, icmpMessage(3, 4, quote(packet{src: "192.0.2.81", dst: testUser, proto: protoTCP, payload: tcpSegment(80, 1000, 16, nil, "")}))), "", verdictNext, DirectorCounters{NoService: 1}},
		{"timestamp request", to(testVIP, protoICMP, icmpMessage(13, 0, make([]byte, 12))), "", verdictNext, DirectorCounters{NoService: 1}},
		{"port of no service", to(testVIP, protoTCP, tcpSegment(1000, 81, 2, nil, "")), "", verdictNext, DirectorCounters{NoService: 1}},
		{"protocol of no service", to(testVIP, 47, make([]byte, 8)), "", verdictNext, DirectorCounters{NoService: 1}},
		{"another destination", to("192.0.2.81", protoTCP, web), "", verdictNext, DirectorCounters{}},
		{"sent to the group itself", to(webGroup, protoUDP, udpDatagram(1000, 80, "x")), "", verdictNext, DirectorCounters{}},
		{"VLAN tag", with(to(testVIP, protoTCP, web), func(p *packet) { p.vlan = true }), "", verdictNext, DirectorCounters{}},
		{"too short", to(testVIP, protoTCP, []byte{1}), "", verdictDrop, DirectorCounters{Malformed: 1}},
		{"error without a quote", to(testVIP, protoICMP, icmpMessage(3, 4, nil)), "", verdictDrop, DirectorCounters{Malformed: 1}},
		{"later fragment whose first was not seen", with(to(testVIP, protoUDP, []byte("abcdefgh")), func(p *packet) { p.offset = 185 }), "", verdictDrop, DirectorCounters{FragmentsLost: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDirector(t, directorServices())
			in := tt.in.frame()
			verdict, out := run(t, d.coll.Programs[directorProgDirector], in)
			if verdict != tt.verdict {
				t.Errorf("verdict %#x, want %#x", verdict, tt.verdict)
			}
			wantDirected(t, tt.in, out, tt.group)
			if tt.group != "" {
				tt.want.Bytes = uint64(len(in))
			}
			if got, err := d.Counters(); err != nil || got != tt.want {
				t.Errorf("counted %+v, error %v, want %+v", got, err, tt.want)
			}
		})
	}
}

// wantDirected checks that out is in as if it had been sent to the group, MAC and checksums included, and nothing else.
func wantDirected(t *testing.T, in packet, out []byte, group string) {
	t.Helper()
	want := in
	if group != "" {
		want.dst = group
	}
	frame := want.frame()
	if group != "" {
		g := addr(group).As4()
		copy(frame, []byte{0x01, 0x00, 0x5e, g[1] & 0x7f, g[2], g[3]})
	}
	if !bytes.Equal(out, frame) {
		t.Errorf("frame\n% x, want\n% x", out, frame)
	}
}

func TestNetDirectorProgramLetsFragmentsFollow(t *testing.T) {
	d := newDirector(t, directorServices())
	first := packet{src: testUser, dst: testVIP, proto: protoUDP, id: 7, more: true, payload: udpDatagram(1000, 53, "12345678")}
	later := packet{src: testUser, dst: testVIP, proto: protoUDP, id: 7, offset: 2, payload: []byte("the rest")}
	for _, p := range []packet{first, later} {
		verdict, out := run(t, d.coll.Programs[directorProgDirector], p.frame())
		if verdict != verdictNext {
			t.Errorf("verdict %#x, want next", verdict)
		}
		wantDirected(t, p, out, dnsGroup)
	}
	other := later
	other.src = "10.1.0.12"
	if verdict, _ := run(t, d.coll.Programs[directorProgDirector], other.frame()); verdict != verdictDrop {
		t.Errorf("another user's fragment of that id: verdict %#x, want drop", verdict)
	}
	unserved := first
	unserved.id, unserved.payload = 8, udpDatagram(1000, 54, "12345678")
	later.id = 8
	for _, p := range []packet{unserved, later} {
		verdict, out := run(t, d.coll.Programs[directorProgDirector], p.frame())
		if verdict != verdictNext {
			t.Errorf("fragment for no service: verdict %#x, want next", verdict)
		}
		wantDirected(t, p, out, "")
	}
	want := DirectorCounters{Rewritten: 2, Bytes: uint64(len(first.frame()) + len(later.frame())), Fragments: 1, FragmentsLost: 1, NoService: 2}
	if got, err := d.Counters(); err != nil || got != want {
		t.Errorf("counted %+v, error %v, want %+v", got, err, want)
	}
}

func TestFirstServiceHasTheLowestPort(t *testing.T) {
	got := firstServices([]DirectorService{
		{VIP: addr(testVIP), Group: addr(webGroup), Ports: []Port{tcp(443), udp(53)}},
		{VIP: addr(testVIP), Group: addr(dnsGroup), Ports: []Port{tcp(53)}},
		{VIP: addr("192.0.2.81"), Group: addr(webGroup), Ports: []Port{tcp(80)}},
	})
	want := map[[4]byte][4]byte{addr(testVIP).As4(): addr(dnsGroup).As4(), {192, 0, 2, 81}: addr(webGroup).As4()}
	if len(got) != len(want) || got[addr(testVIP).As4()] != want[addr(testVIP).As4()] {
		t.Errorf("got %v, want %v", got, want)
	}
}
