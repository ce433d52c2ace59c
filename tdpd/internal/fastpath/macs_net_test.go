package fastpath

import (
	"net"
	"slices"
	"testing"
)

// What a switch floods, or an interface hears in promiscuous mode, is not for this router: whoever it is for has it, too. That holds for users'
// packets, for labels, and for groups of hosts; what users have labelled is dropped whomever it is for.
func TestNetFramesForOthersAreLeftAlone(t *testing.T) {
	f := open(t)
	set(t, f, halves(t))
	own := net.HardwareAddr{2, 0, 0, 0, 1, 1}
	to := func(frame []byte, mac net.HardwareAddr) []byte {
		frame = slices.Clone(frame)
		copy(frame, mac)
		return frame
	}
	user := tagless("10.1.0.12", "192.0.2.80")
	if verdict, _ := give(t, f.objects.FastCore, to(user, net.HardwareAddr{2, 0, 0, 0, 7, 7})); verdict != redirect {
		t.Errorf("before its address is known: verdict %d", verdict)
	}
	const loopback = 1 // where test runs say that packets come in
	if err := f.SetMACs(map[int]net.HardwareAddr{loopback: own, int(f.objects.FastMacs.MaxEntries()): own}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		to   net.HardwareAddr
		want uint32
	}{
		"own":          {own, redirect},
		"another's":    {net.HardwareAddr{2, 0, 0, 0, 1, 2}, pass},
		"first differ": {net.HardwareAddr{6, 0, 0, 0, 1, 1}, pass},
		"broadcast":    {net.HardwareAddr{255, 255, 255, 255, 255, 255}, pass},
		"multicast":    {net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, pass},
	} {
		for _, frame := range [][]byte{user, tagless("2001:db8:7::12", "2001:db8::80")} {
			if verdict, _ := give(t, f.objects.FastEdge, to(frame, c.to)); verdict != c.want {
				t.Errorf("%s: verdict %d, want %d", name, verdict, c.want)
			}
		}
	}
}
