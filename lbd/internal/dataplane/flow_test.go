package dataplane

import (
	"net/netip"
	"testing"
)

func TestFlowOf(t *testing.T) {
	tcp := packet{src: testUser, dst: testVIP, proto: protoTCP, payload: tcpSegment(1000, 80, flagACK, nil, "hello")}
	with := func(change func(*packet)) []byte { p := tcp; change(&p); return p.frame() }
	want := Flow{User: netip.MustParseAddrPort(testUser + ":1000"), VIP: netip.MustParseAddrPort(testVIP + ":80")}
	for name, tt := range map[string]struct {
		frame []byte
		ok    bool
	}{
		"TCP":              {tcp.frame(), true},
		"IP options":       {with(func(p *packet) { p.options = []byte{7, 7, 4, 0, 0, 0, 0, 0} }), true},
		"UDP":              {with(func(p *packet) { p.proto, p.payload = protoUDP, udpDatagram(1000, 80, "") }), false},
		"later fragment":   {with(func(p *packet) { p.offset = 3 }), false},
		"VLAN tag":         {with(func(p *packet) { p.vlan = true }), false},
		"header too short": {tcp.frame()[:14+20+19], false},
		"nothing":          {nil, false},
	} {
		if f, ok := flowOf(tt.frame); ok != tt.ok || ok && f != want {
			t.Errorf("%s: %s, %t", name, f, ok)
		}
	}
	k := newFlowMapKey(want)
	if k.flow() != want {
		t.Errorf("%s becomes %s", want, k.flow())
	}
}

func FuzzFlowOf(f *testing.F) {
	f.Add(packet{src: testUser, dst: testVIP, proto: protoTCP, payload: tcpSegment(1000, 80, flagACK, nil, "hello")}.frame())
	f.Add(append(append(make([]byte, 12), 0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64), make([]byte, 52)...))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if flow, ok := flowOf(frame); ok && (checkFlow(flow) != nil || newFlowMapKey(flow).flow() != flow) {
			t.Errorf("flow %s", flow)
		}
	})
}

func FuzzParseStray(f *testing.F) {
	f.Add(make([]byte, strayHeader+strayMax))
	f.Add(append(make([]byte, 40), 5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseStray(b); ok && len(s.Frame) > strayMax {
			t.Errorf("frame of %d bytes", len(s.Frame))
		}
	})
}
