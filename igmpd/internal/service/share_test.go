package service

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/igmpd/internal/admission"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
)

// Hosts that keep the router busy with public groups keep neither signed joins out, nor public groups for long.
func TestPublicReportsHaveTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRouter(t, t.TempDir(), nil)
		defer r.stop()
		work := 10 * time.Second
		if err := r.service.do(context.Background(), func() {
			r.service.ports["lan"].public = share{debt: work, at: time.Now()}
		}); err != nil {
			t.Fatal(err)
		}
		r.receiveMessage(other, igmp.V2Report{Group: public})
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, evenUsers)))
		st := r.status()
		if len(r.fwd.Last().Public) != 0 || st.Refused[admission.RateLimited.String()] != 1 || st.Admitted != 1 {
			t.Fatalf("%d public routes, refused %v, admitted %d", len(r.fwd.Last().Public), st.Refused, st.Admitted)
		}
		time.Sleep(work * shareOf)
		if r.receiveMessage(other, igmp.V2Report{Group: public}); len(r.fwd.Last().Public) != 1 {
			t.Fatal("public groups stay out for ever")
		}
	})
}

func TestShare(t *testing.T) {
	began := time.Unix(1e9, 0)
	at := func(d time.Duration) time.Time { return began.Add(d) }
	for name, burst := range map[string]time.Duration{"at once": 0, "with a burst": shareMost} {
		t.Run(name, func(t *testing.T) {
			s := share{burst: burst}
			if !s.ready(began) {
				t.Fatal("not ready before anything was done")
			}
			s.spend(began, at(burst))
			if !s.ready(at(burst)) {
				t.Error("the burst cannot be used up")
			}
			s.spend(at(burst), at(burst+10*time.Millisecond))
			ended := burst + 10*time.Millisecond
			if due := at(ended + 10*time.Millisecond*shareOf); s.next().After(due) || s.ready(due.Add(-20*time.Millisecond)) || !s.ready(due) {
				t.Errorf("next at %v, want about %v", s.next().Sub(began), due.Sub(began))
			}
		})
	}
	// Whoever always works as soon as it may gets its part and no more.
	var s share
	now, worked := began, time.Duration(0)
	for now.Sub(began) < 10*time.Second {
		start := s.next()
		if start.Before(now) {
			start = now
		}
		now = start.Add(3 * time.Millisecond)
		s.spend(start, now)
		worked += 3 * time.Millisecond
	}
	if worked > time.Second+3*time.Millisecond || worked < 800*time.Millisecond {
		t.Errorf("worked for %v of 10 s", worked)
	}
}
