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

// benched is how many entries are installed at once: the kernel looks through all encapsulations by one neighbour for each prefix, so more
// make prefixes slower.
const benched = 2000

// installing is entries to install, by us and by `ip -batch`.
type installing struct {
	what, family string
	state        State
	add, remove  string   // files
	ours, theirs duration // of all turns
}

type duration struct {
	time.Duration
	entries int
}

func (d duration) rate() float64 { return float64(d.entries) / d.Seconds() }

// install measures turns in which labels, and prefixes with labels, get into the kernel: by us, then by `ip -batch` with the same entries.
func install(t testing.TB, turns int) []*installing {
	r := newRig(t)
	var l *Linux
	r.do(r.b, func() (err error) {
		l, err = Open(Config{PlatformLabels: platformMax, Former: ""}, slog.New(slog.DiscardHandler))
		return err
	})
	t.Cleanup(func() { r.do(r.b, func() error { return l.Close(false) }) })
	nothing := func() State { return State{Interfaces: []string{"ba"}} }
	r.set(r.b, l, nothing)
	at := 0
	r.do(r.b, func() error { at = index("bc1"); return nil })
	all := []*installing{
		{what: "labels", family: "mpls", state: State{Interfaces: []string{"ba"}, Labels: map[uint32][]Hop{}}},
		{what: "prefixes", family: "inet", state: State{Interfaces: []string{"ba"}, Prefixes: map[netip.Prefix][]Hop{}}},
	}
	var batches [2]strings.Builder
	for i := range uint32(benched) {
		hops := []Hop{{Labels: []uint32{2000 + i}, Via: netip.MustParseAddr("10.0.1.2"), Interface: at}}
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		all[0].state.Labels[1000+i], all[1].state.Prefixes[prefix] = hops, hops
		fmt.Fprintf(&batches[0], "route add %d as %d via inet 10.0.1.2 dev bc1\n", 1000+i, 2000+i)
		fmt.Fprintf(&batches[1], "route add %v encap mpls %d via 10.0.1.2 dev bc1 metric 1\n", prefix, 2000+i)
	}
	for n, m := range all {
		m.add, m.remove = filepath.Join(t.TempDir(), "add"), filepath.Join(t.TempDir(), "remove")
		for file, text := range map[string]string{m.add: batches[n].String(), m.remove: strings.ReplaceAll(batches[n].String(), "route add", "route del")} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for range turns {
			r.clock(&m.ours, func() { r.set(r.b, l, func() State { return m.state }) })
			r.set(r.b, l, nothing)
			r.clock(&m.theirs, func() { r.run(r.b, "ip -f "+m.family+" -batch "+m.add) })
			r.run(r.b, "ip -f "+m.family+" -batch "+m.remove)
		}
	}
	return all
}

func (r *rig) clock(d *duration, do func()) {
	start := time.Now()
	do()
	d.Duration, d.entries = d.Duration+time.Since(start), d.entries+benched
}

// TestVMLabelsPerSecond: getting labels and prefixes into the kernel takes us no longer than `ip -batch`.
func TestVMLabelsPerSecond(t *testing.T) {
	for _, m := range install(t, 3) {
		t.Logf("%s: %.0f/s; ip -batch %.0f/s (%d entries, one next hop)", m.what, m.ours.rate(), m.theirs.rate(), benched)
		if m.ours.rate() < m.theirs.rate() {
			t.Errorf("%s: slower than ip -batch", m.what)
		}
	}
}

// BenchmarkVMInstall measures the same for make bench.
func BenchmarkVMInstall(b *testing.B) {
	for _, m := range install(b, b.N) {
		b.ReportMetric(m.ours.rate(), m.what+"/s")
		b.ReportMetric(m.theirs.rate(), "batch-"+m.what+"/s")
	}
}
