package load

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/lbd/internal/agent"
)

// Figure is a load in one number, where 1 is as much as the server can bear (policy.Measure). Who says nothing may be idle: 0.
func Figure(l alloc.Load) float64 {
	if f := policy.Measure(l); !math.IsNaN(f) {
		return f
	}
	return 0
}

// full is how much a full queue adds to the own figure of an application that does not say its load: a CPU cannot be more than
// busy, and does not tell by how much there is too much to do.
const full = 0.25

// refusing is what a Task does to one service.
type refusing struct {
	Shedding
	service agent.Serving
}

// shed refuses as many users of each service as is to be.
func (t *Task) shed(now time.Time, serving []agent.Serving, loads map[string]alloc.Load) {
	kept := make(map[string]bool, len(serving))
	for _, s := range serving {
		kept[s.Name] = true
		r, ok := t.state.refusing[s.Name]
		if !ok || r.service.Destination() != s.Destination() {
			share, err := t.sources.Plane.Shedding(s.Destination())
			if t.failed(shedding, err) {
				continue
			}
			r.Shedding = Resumed(share)
		}
		r.service = s
		if load, known := loads[s.Name]; known || s.Balance.Shed == 0 {
			o := t.overload(s, load)
			t.divert(now.Sub(t.at), s, o)
			t.refuse(r, r.Next(now.Sub(t.at), o), o)
		} else {
			t.state.refuse(r)
		}
	}
	t.state.keep(kept)
	maps.DeleteFunc(t.diverting, func(name string, _ diversion) bool { return !kept[name] })
}

func (t *Task) overload(s agent.Serving, l alloc.Load) Overload {
	o := Overload{
		Threshold: s.Balance.Shed, Own: Figure(l), Alone: t.sources.Channel == nil && len(s.Servers) > 1,
		Others: t.others.loads(s, t.name),
	}
	if sockets := t.sockets.of(s); l.Application == nil && sockets.Backlog > 0 {
		o.Own += full * min(float64(l.Queue)/float64(sockets.Backlog), 1)
	}
	if l.Accepts > 0 { // Little's law
		o.Lasting = time.Duration(min(float64(l.Connections)/l.Accepts, longest.Seconds()) * float64(time.Second))
	}
	return o
}

// refuse makes the data plane do what is next, and says so where it begins and ends.
func (t *Task) refuse(r refusing, next Shedding, o Overload) {
	if share := next.Share(); share != r.Share() {
		if t.failed(shedding, t.sources.Plane.Shed(r.service.Destination(), share)) {
			return
		}
		switch {
		case r.Share() == 0:
			t.log.Warn("refuses new connections of some users: there is too much to do", "service", r.service.Name,
				"load", hundredths(o.Own)[0], "threshold", o.Threshold, "others", hundredths(o.Others...))
		case share == 0:
			t.log.Info("refuses nobody any more", "service", r.service.Name)
		}
	}
	r.Shedding = next
	t.state.refuse(r)
}

func hundredths(figures ...float64) []float64 {
	out := make([]float64, len(figures))
	for i, f := range figures {
		out[i] = math.Round(100*f) / 100
	}
	return out
}

// keep forgets services that are gone; with them the data plane has forgotten whom to refuse.
func (s *state) keep(kept map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Collect(maps.Keys(s.refusing)) {
		if !kept[name] {
			delete(s.refusing, name)
		}
	}
}
