package fastpath

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// tagged is a frame with VLAN tags put in, by their protocols, outermost first, and another protocol behind them where that is not 0.
func tagged(frame []byte, proto uint16, tags ...uint16) []byte {
	b := slices.Clone(frame[:12])
	for i, tag := range tags {
		b = binary.BigEndian.AppendUint16(b, tag)
		b = binary.BigEndian.AppendUint16(b, uint16(i+1))
	}
	b = append(b, frame[12:]...)
	if proto != 0 {
		binary.BigEndian.PutUint16(b[12+4*len(tags):], proto)
	}
	return b
}

// TestNetLabelsFromOutside: nobody outside brings a label in, of unicast or multicast, behind whatever tags. Inside the domain tagged frames,
// and those of multicast, are left alone.
func TestNetLabelsFromOutside(t *testing.T) {
	f := open(t)
	set(t, f, State{Labels: map[uint32][]Hop{100: {{Interface: 7, How: Label, Label: 200, To: next, From: here, MTU: 1500}}}})
	ip := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 17, ttl: 64, payload: make([]byte, 40)}.ip()
	plain, labelled := frame(ip), frame(ip, entry(100, 0, true, 50))
	const q, ad, q1, multicast = 0x8100, 0x88a8, 0x9100, 0x8848
	outsiders := uint64(0)
	for name, c := range map[string]struct {
		in      []byte
		verdict uint32
	}{
		"of multicast":              {tagged(labelled, multicast), drop},
		"tagged":                    {tagged(labelled, 0, q), drop},
		"of multicast, tagged":      {tagged(labelled, multicast, q), drop},
		"tagged twice":              {tagged(labelled, 0, ad, q), drop},
		"tagged as once":            {tagged(labelled, 0, q1, q), drop},
		"tagged four times":         {tagged(labelled, 0, ad, q, q, q), drop},
		"five tags, whatever":       {tagged(plain, 0, ad, q, q, q, q), drop},
		"without a label":           {tagged(plain, 0, q), pass},
		"without a label, four":     {tagged(plain, 0, ad, q, q, q), pass},
		"half a tag":                {tagged(labelled, 0, q)[:17], pass},
		"a tag with nothing behind": {tagged(labelled, 0, q, q)[:18], pass},
	} {
		t.Run(name, func(t *testing.T) {
			if verdict, _ := give(t, f.objects.FastEdge, c.in); verdict != c.verdict {
				t.Errorf("on the edge: verdict %d, want %d", verdict, c.verdict)
			}
			if verdict, out := give(t, f.objects.FastCore, c.in); verdict != pass || !bytes.Equal(out, c.in) {
				t.Errorf("in the core: verdict %d, %x", verdict, out)
			}
		})
		if c.verdict == drop {
			outsiders++
		}
	}
	if got, err := f.Counters(); err != nil || got != (Counters{Outsider: outsiders}) {
		t.Errorf("%+v, %v, want %d outsiders", got, err, outsiders)
	}
}

// TestNetLabelsWithoutTables: where there are no tables behind, what would be left to them is dropped and counted, not lost; with tables it is
// left to them, reserved labels, too.
func TestNetLabelsWithoutTables(t *testing.T) {
	ip := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 17, ttl: 60, payload: make([]byte, 40)}
	long := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 17, ttl: 60, payload: make([]byte, 1480)} // may be fragmented
	deep := []uint32{entry(100, 0, false, 50)}
	for n := range uint32(14) {
		deep = append(deep, entry(1000+n, 0, n == 13, 64))
	}
	swapped := slices.Clone(deep)
	swapped[0] = entry(200, 0, false, 49)
	for _, alone := range []bool{false, true} {
		f := openWith(t, Options{Alone: alone})
		set(t, f, State{Labels: map[uint32][]Hop{100: {{Interface: 7, How: Label, Label: 200, To: next, From: here, MTU: 1500}}, 101: {{How: Kernel}}, 102: nil}})
		for name, in := range map[string][]byte{
			"not known":       frame(ip.ip(), entry(999, 0, true, 50)),
			"the highest":     frame(ip.ip(), entry(1<<20-1, 0, true, 50)),
			"explicit null":   frame(ip.ip(), entry(0, 0, true, 50)),
			"router alert":    frame(ip.ip(), entry(1, 0, false, 50), entry(100, 0, true, 50)),
			"null of IPv6":    frame(ip.ip(), entry(2, 0, true, 50)),
			"implicit null":   frame(ip.ip(), entry(3, 0, true, 50)),
			"for this router": frame(ip.ip(), entry(101, 0, true, 50)),
			"expiring":        frame(ip.ip(), entry(100, 0, true, 1)),
			"too long":        frame(long.ip(), entry(100, 0, true, 50)),
		} {
			verdict, out := give(t, f.objects.FastCore, in)
			if want := map[bool]uint32{false: pass, true: drop}[alone]; verdict != want || !bytes.Equal(out, in) {
				t.Errorf("%s, alone %v: verdict %d, want %d", name, alone, verdict, want)
			}
		}
		if verdict, out := give(t, f.objects.FastCore, frame(ip.ip(), deep...)); verdict != redirect || !bytes.Equal(out, sent(ip.ip(), swapped...)) {
			t.Errorf("a deep stack, alone %v: verdict %d, %x", alone, verdict, out)
		}
		if verdict, _ := give(t, f.objects.FastCore, frame(ip.aged(1).ip())); verdict != pass {
			t.Errorf("without a label, alone %v: verdict %d", alone, verdict)
		}
		want := Counters{Swapped: 1, Kernel: 9, Expiring: 1, TooLong: 1}
		if alone {
			want = Counters{Swapped: 1, NoLabel: 6, NoTables: 3, Expiring: 1, TooLong: 1}
		}
		if got, err := f.Counters(); err != nil || got != want {
			t.Errorf("alone %v: counters %+v, %v, want %+v", alone, got, err, want)
		}
	}
}
