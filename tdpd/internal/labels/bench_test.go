package labels_test

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/forwarding"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// prefixes are n host routes.
func prefixes(n int) (all []netip.Prefix) {
	for i := range n {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32))
	}
	return all
}

// BenchmarkFEC is a route and a mapping from each of two peers, with the forwarding that follows; it tells what 100,000 of them take.
func BenchmarkFEC(b *testing.B) {
	const n = 100_000
	all := prefixes(n)
	for b.Loop() {
		before := heap()
		l := must(labels.New(labels.Config{}))
		tables := forwarding.New()
		l.Up(start, parsePeer([]string{"2.2.2.2", "eth1/192.0.2.2"}))
		l.Up(start, parsePeer([]string{"3.3.3.3", "eth2/10.0.0.3"}))
		for _, p := range all {
			l.Routes(start, []labels.Route{{Prefix: p, NextHops: parseRoute([]string{"transit", "::/0", "192.0.2.2@eth1"}).NextHops}}, nil)
			for _, peer := range []string{"2.2.2.2", "3.3.3.3"} {
				l.Message(start, peerID(peer), wire.LabelMapping{FEC: wire.FEC{wire.Prefix{Prefix: p}}, Label: 1000})
			}
			v, _ := l.View(p)
			tables.Update([]labels.View{v}, nil)
		}
		b.StopTimer()
		with := heap()
		runtime.KeepAlive(tables)
		tables = nil
		b.ReportMetric(float64(with-before)/n, "B/FEC")
		b.ReportMetric(float64(heap()-before)/n, "B/FEC-without-tables")
		runtime.KeepAlive(l)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/FEC")
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
