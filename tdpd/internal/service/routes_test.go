package service

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/routing"
)

// TestRoutesWhileTheirOwnerIsHeldUp: 20,000 changes of 1,000 best paths come while the owner of FECs takes nothing. The speaker waits for nobody, what waits for the owner is
// a change of each path at most, and it has at last what the last of them say.
func TestRoutesWhileTheirOwnerIsHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const changes, paths = 20_000, 1000
		relayed, entries, most := make(chan bgppolicy.Changes), 0, 0
		r := newPeered(t, func(*routing.Loop) <-chan bgppolicy.Changes { return relayed })
		defer r.end()
		go func() {
			for {
				select {
				case c := <-r.loop.Learned():
					n := len(c.Added) + len(c.Changed) + len(c.Stale) + len(c.Fresh) + len(c.Gone)
					entries, most = entries+n, max(most, n)
					select {
					case relayed <- c:
					case <-t.Context().Done():
						return
					}
				case <-t.Context().Done():
					return
				}
			}
		}()
		synctest.Wait()
		r.session(bgp.Established)
		held, free := make(chan struct{}), make(chan struct{})
		go func() { _ = r.Do(t.Context(), func(time.Time) { close(held); <-free }) }()
		<-held
		has, random, begun := map[netip.Prefix]uint32{}, rand.New(rand.NewPCG(1, 2)), time.Now()
		var batch []bgp.Event
		for i := range changes {
			p := nth(random.IntN(paths))
			if _, is := has[p]; is && random.IntN(4) == 0 {
				delete(has, p)
				batch = append(batch, bgp.Event{Lost: &bgp.Lost{Family: bgp.IPv4Labelled, Prefix: p}})
			} else {
				has[p] = uint32(100 + i)
				batch = append(batch, toldBy(p, has[p]))
			}
			if len(batch) == bgp.EventsMost || i == changes-1 {
				r.speaker.Tell(batch...)
				batch = nil
			}
		}
		s, err := r.loop.Status(t.Context())
		if took := time.Since(begun); took > 0 || err != nil || s.Learned != len(has) {
			t.Errorf("told in %v; the loop has %d, want %d, %v", took, s.Learned, len(has), err)
		}
		close(free)
		r.want(time.Second, has, "the owner goes on")
		// One piece is on the way, one waits, and the rest is made when that has been taken.
		if entries > 3*paths || most > paths {
			t.Errorf("the owner was told %d changes, %d at once at most", entries, most)
		}
	})
}
