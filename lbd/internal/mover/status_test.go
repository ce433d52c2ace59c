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

// TestCancelled: what has not been sent when the operator stops a batch stays, and nobody is left half given. It is fetched when that is wanted.
func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		b.commit("s1", "s1")
		b.wait(100 * time.Millisecond)
		b.connect("s1", 0, 40)
		s1, s2 := b.servers["s1"], b.servers["s2"]
		for i := 21; i < 40; i += 2 {
			s1.apps.Conn(appFlow(i)).Wait = true // in the midst of a request, for as long as it is asked
		}
		b.commit("s1", "s2")
		b.wait(50 * time.Millisecond)
		if n, err := s1.Cancel(t.Context(), "mail"); n > 0 || err == nil {
			t.Errorf("%d connections of another service stay, %v", n, err)
		}
		stayed, err := s1.Cancel(t.Context(), "web")
		if err != nil || stayed != 10 {
			t.Errorf("%d stay, %v, want 10", stayed, err)
		}
		if again, err := s1.Cancel(t.Context(), "web"); again != 0 || err != nil {
			t.Errorf("stopped again: %d stay, %v", again, err)
		}
		b.wait(5 * time.Second)
		c, status := s1.Counters(), ""
		for i := 1; i < 40; i += 2 {
			status += s1.history(i) + ";"
		}
		if want := strings.Repeat("exported gone: frozen ended;", 10) + strings.Repeat(": ;", 10); status != want || c.Given != 10 || c.Stayed[handover.Cancelled] != 10 {
			t.Errorf("%+v\n%s\nwant\n%s", c, status, want)
		}
		s, err := s1.Status(t.Context())
		if err != nil || len(s.Giving) != 0 || len(s.Batches) != 1 || s.Batches[0].Stayed != 10 {
			t.Errorf("%+v, %v", s, err)
		}
		for i := 21; i < 40; i += 2 {
			s1.apps.Conn(appFlow(i)).Wait = false
		}
		if err := s2.Fetch(t.Context(), "web", []handover.Flow{flowOf(21)}); err != nil {
			t.Error(err)
		}
		if b.wait(time.Second); s2.Counters().Taken != 11 {
			t.Errorf("one is fetched: %d are taken", s2.Counters().Taken)
		}
		if err := s2.Fetch(t.Context(), "web", nil); err != nil {
			t.Error(err)
		}
		if b.wait(time.Second); s2.Counters().Taken != 20 {
			t.Errorf("all are fetched: %d are taken", s2.Counters().Taken)
		}
	})
}
