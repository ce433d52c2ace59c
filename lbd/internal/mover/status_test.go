package mover

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/lbd/internal/handover"
)

// TestWhatStayedIsFetched: connections that had not moved in time are asked for again, one or all.
func TestWhatStayedIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		b.commit("s1", "s1")
		b.wait(100 * time.Millisecond)
		b.commit("s1", "s2")
		b.wait(5 * time.Second)
		b.connect("s1", 0, 8) // what comes to the former owner after all
		s1, s2 := b.servers["s1"], b.servers["s2"]
		if err := s2.Fetch(t.Context(), "web", []handover.Flow{flowOf(3)}); err != nil {
			t.Fatal(err)
		}
		b.wait(time.Second)
		if c := s2.Counters(); c.Taken != 1 || !strings.Contains(s1.history(3), "ended") {
			t.Errorf("s2 counts %+v; connection 3 at s1: %q", c, s1.history(3))
		}
		if err := s2.Fetch(t.Context(), "web", nil); err != nil {
			t.Fatal(err)
		}
		b.wait(3 * time.Second)
		if c := s2.Counters(); c.Taken != 4 {
			t.Errorf("s2 counts %+v", c)
		}
		s, err := s1.Status(t.Context())
		if err != nil || len(s.Giving) != 0 || len(s.Batches) != 1 || s.Batches[0].Given != 4 {
			t.Errorf("%+v, %v", s, err)
		}
		for name, flow := range map[string]handover.Flow{"web": flowOf(2), "mail": flowOf(1)} {
			if err := s2.Fetch(t.Context(), name, []handover.Flow{flow}); err == nil {
				t.Errorf("connection %v of %s is fetched", flow, name)
			}
		}
	})
}
