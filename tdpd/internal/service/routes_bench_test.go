package service

import (
	"log/slog"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/routing"
)

// counting is a kernel that says how many prefixes it has got.
type counting struct {
	*kernel.Fake
	got chan int
}

func (c counting) Update(changes kernel.Changes) error {
	err := c.Fake.Update(changes)
	c.got <- len(changes.Prefixes)
	return err
}

// BenchmarkRoutes is 20,000 best paths that change, from the speaker's events through routing's loop to FECs and what the kernel is told, beside the same
// for the owner of FECs alone, who gets them in one piece. The kernel is a fake.
func BenchmarkRoutes(b *testing.B) {
	const n = 20_000
	c, relayed := counting{kernel.NewFake(kernel.State{}), make(chan int, n)}, make(chan bgppolicy.Changes)
	r := newPeered(b, func(*routing.Loop) <-chan bgppolicy.Changes { return relayed }, func(o *Options) {
		o.Kernel, o.Log = c, slog.New(slog.DiscardHandler)
	})
	defer r.end()
	go func() {
		for {
			select {
			case some := <-r.loop.Learned():
				relayed <- some
			case <-b.Context().Done():
				return
			}
		}
	}()
	took := func(begin func()) time.Duration {
		begun := time.Now()
		begin()
		for left := n; left > 0; left -= <-c.got {
		}
		return time.Since(begun)
	}
	var batches [][]bgp.Event
	tell := func() {
		for _, some := range batches {
			r.speaker.Tell(some...)
		}
	}
	piece := bgppolicy.Changes{Changed: make([]bgppolicy.Route, n)}
	prepare := func(label uint32) {
		batches = nil
		for i := range n {
			if i%bgp.EventsMost == 0 {
				batches = append(batches, nil)
			}
			last := &batches[len(batches)-1]
			*last = append(*last, toldBy(nth(i), label))
			piece.Changed[i] = bgppolicy.Route{Prefix: nth(i), NextHop: bgpPeer, Label: label + 1, From: bgpPeer}
		}
	}
	if _, err := r.loop.Status(b.Context()); err != nil { // it watches by now
		b.Fatal(err)
	}
	r.session(bgp.Established)
	prepare(100)
	took(tell)
	through, alone, label := time.Duration(0), time.Duration(0), uint32(200)
	for b.Loop() {
		prepare(label)
		through += took(tell)
		alone += took(func() { relayed <- piece })
		label += 2
	}
	rate := func(d time.Duration) float64 { return n * float64(b.N) / d.Seconds() }
	b.ReportMetric(rate(through), "routes/s")
	b.ReportMetric(rate(alone), "routes/s-alone")
}
