package interop

import (
	"context"
	"net/netip"
	"sync"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// seen is what a watch of the speaker has told.
type seen struct {
	mu      sync.Mutex
	routes  map[seenKey]bgp.Learned
	refused map[string]uint64
	lost    int
	learned int
	synced  int
	began   int
}

type seenKey struct {
	family bgp.Family
	prefix netip.Prefix
}

func (r *rig) watch() *seen {
	r.t.Helper()
	s := &seen{routes: map[seenKey]bgp.Learned{}, refused: map[string]uint64{}}
	ctx, cancel := context.WithCancel(context.Background())
	events, err := r.client.Watch(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for some := range events {
			for _, e := range some {
				s.take(e)
			}
		}
	}()
	r.t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

func (s *seen) take(e bgp.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.Learned != nil && e.Learned.Unicast != nil:
		s.routes[seenKey{e.Learned.Unicast.Family(), e.Learned.Unicast.Prefix}] = *e.Learned
		s.learned++
	case e.Learned != nil && e.Learned.Labelled != nil:
		s.routes[seenKey{e.Learned.Labelled.Family(), e.Learned.Labelled.Prefix}] = *e.Learned
		s.learned++
	case e.Lost != nil:
		delete(s.routes, seenKey{e.Lost.Family, e.Lost.Prefix})
		s.lost++
	case e.Refused != nil:
		s.refused[e.Refused.Why] += e.Refused.Count
	case e.Began:
		s.began++
	case e.Synced:
		s.synced++
	}
}

func (s *seen) unicast(p netip.Prefix) *bgp.Path {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.routes[seenKey{bgp.UnicastOf(p), p}].Unicast
}

func (s *seen) labelled(p netip.Prefix) *bgp.LabelledPath {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.routes[seenKey{bgp.LabelledOf(p), p}].Labelled
}

func (s *seen) has(f bgp.Family, p netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, has := s.routes[seenKey{f, p}]
	return has
}

// counts are how many events there were, and routes are now.
func (s *seen) counts() (routes, learned, lost, synced int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.routes), s.learned, s.lost, s.synced
}

func (s *seen) refusedFor(why string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused[why]
}
