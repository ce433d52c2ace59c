package members_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkThousandMembers is one member's work for a second on a channel of a thousand: 20 heartbeats each, one report. The bytes are
// of UDP payload, per sender.
func BenchmarkThousandMembers(b *testing.B) {
	const count = 1000
	var all []*speaker
	for i := range count {
		s := server(b, fmt.Sprint("s", i), netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), uint64(i+1))
		s.Tick(begin, begin)
		all = append(all, s)
	}
	l := newListener(b, begin)
	type heard struct {
		at  time.Time
		by  *speaker
		raw []byte
	}
	say := func(from time.Time) (out []heard, bytes int) {
		for now := from; now.Before(from.Add(time.Second)); now = now.Add(time.Millisecond) {
			for _, s := range all {
				if now.Before(s.Next()) {
					continue
				}
				frames, _, err := s.Tick(now, now)
				if err != nil {
					b.Fatal(err)
				}
				for _, f := range frames {
					out = append(out, heard{now, s, f})
					bytes += len(f)
				}
			}
		}
		return out, bytes
	}
	now := begin.Add(time.Millisecond)
	frames, total := 0, 0
	hear := func(said []heard) {
		for _, h := range said {
			if !h.at.Before(l.Next()) {
				l.Tick(h.at)
			}
			if _, err := l.Frame(h.at, h.at, "eth0", h.by.id.Address, h.raw); err != nil {
				b.Fatal(err)
			}
		}
	}
	for range 2 { // all are known then, and past their first second
		said, _ := say(now)
		hear(said)
		now = now.Add(time.Second)
	}
	b.ResetTimer()
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		said, bytes := say(now)
		frames, total = frames+len(said), total+bytes
		now = now.Add(time.Second)
		b.StartTimer()
		hear(said)
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)*100, "%cpu")
	b.ReportMetric(float64(total)/float64(b.N)/count, "B/member/s")
	b.ReportMetric(float64(frames)/float64(b.N)/count, "frames/member/s")
}
