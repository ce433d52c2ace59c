package kernel

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestVMLabelsPerSecond measures how fast labels get into the kernel, and prefixes with labels, each beside `ip -batch` with the same
// entries in the same run. It fails where we are slower.
func TestVMLabelsPerSecond(t *testing.T) {
	const count = 2000 // the kernel looks through all encapsulations by one neighbour for each prefix: more make prefixes slower
	r := newRig(t)
	var l *Linux
	r.do(r.b, func() (err error) {
		l, err = Open(Config{PlatformLabels: platformMax, Former: ""}, slog.New(slog.DiscardHandler))
		return err
	})
	t.Cleanup(func() { r.do(r.b, func() error { return l.Close(false) }) })
	r.set(r.b, l, func() State { return State{Interfaces: []string{"ba"}} })
	at := 0
	r.do(r.b, func() error { at = index("bc1"); return nil })
	via := netip.MustParseAddr("10.0.1.2")
	s := State{Interfaces: []string{"ba"}, Labels: map[uint32][]Hop{}}
	var labels, prefixes strings.Builder
	for i := range uint32(count) {
		s.Labels[1000+i] = []Hop{{[]uint32{2000 + i}, via, at}}
		fmt.Fprintf(&labels, "route add %d as %d via inet 10.0.1.2 dev bc1\n", 1000+i, 2000+i)
	}
	p := State{Interfaces: []string{"ba"}, Prefixes: map[netip.Prefix][]Hop{}}
	for i := range uint32(count) {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		p.Prefixes[prefix] = []Hop{{[]uint32{2000 + i}, via, at}}
		fmt.Fprintf(&prefixes, "route add %v encap mpls %d via 10.0.1.2 dev bc1 metric 1\n", prefix, 2000+i)
	}
	for _, m := range []struct {
		what   string
		state  State
		family string
		batch  string
	}{{"labels", s, "mpls", labels.String()}, {"prefixes", p, "inet", prefixes.String()}} {
		ours := testing.Benchmark(func(b *testing.B) {
			for range b.N {
				r.set(r.b, l, func() State { return m.state })
				b.StopTimer()
				r.set(r.b, l, func() State { return State{Interfaces: []string{"ba"}} })
				b.StartTimer()
			}
		})
		file := filepath.Join(t.TempDir(), "batch")
		if err := os.WriteFile(file, []byte(m.batch), 0o600); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		r.run(r.b, "ip -f "+m.family+" -batch "+file)
		batch := time.Since(start)
		r.run(r.b, "sed -i 's/route add/route del/' "+file+" && ip -f "+m.family+" -batch "+file)
		rate, theirs := float64(count*ours.N)/ours.T.Seconds(), count/batch.Seconds()
		t.Logf("%s: %.0f/s; ip -batch %.0f/s (%d entries, one next hop)", m.what, rate, theirs, count)
		if rate < theirs {
			t.Errorf("%s: slower than ip -batch", m.what)
		}
	}
	r.set(r.b, l, func() State { return s })
	start := time.Now()
	r.set(r.b, l, func() State { return s })
	t.Logf("a Set that changes nothing of %d labels: %v", count, time.Since(start))
}
