package load

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/agent"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// diversion is what a Task does to one service.
type diversion struct {
	Diverting
	group netip.Addr
}

// divert has other servers answer as many users of a service as is to be. Of one that is not dynamic it is nobody.
func (t *Task) divert(dt time.Duration, s agent.Serving, o Overload) {
	d, ok := t.diverting[s.Name]
	if !ok || d.group != s.Destination() {
		share, to, err := t.sources.Plane.Redirecting(s.Destination())
		if t.failed(diverting, err) {
			return
		}
		d = diversion{Diverting{float64(share) / dataplane.ShedAll, to}, s.Destination()}
	}
	var next Diverting
	if s.Dynamic.On {
		next = d.Next(dt, o, t.others.takers(s, t.name))
	}
	if share := next.Share(); share != d.Share() || next.To != d.To {
		if t.failed(diverting, t.sources.Plane.Redirect(d.group, share, next.To)) {
			return
		}
		switch {
		case share > 0 && (d.Share() == 0 || next.To != d.To):
			t.log.Warn("new connections of some users go to another server: there is too much to do", "service", s.Name, "to", next.To,
				"load", hundredths(o.Own)[0], "threshold", o.Threshold)
		case share == 0 && d.Share() > 0:
			t.log.Info("new connections go to no other server any more", "service", s.Name)
		}
	}
	t.diverting[s.Name] = diversion{next, d.group}
}

// takers are those that serve beside the server of that name, and whose connections say where they live.
func (o *others) takers(s agent.Serving, own string) (out []Other) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, m := range o.members {
		if takes(name, own, s, m) && m.Address.Is4() && s.Dynamic.At(m.Address) {
			out = append(out, Other{m.Address, Figure(m.Loads[s.Name])})
		}
	}
	return out
}

// takes says whether a member may take users of the service: whoever says that it does not serve, or is silent, does not.
func takes(name, own string, s agent.Serving, m control.Member) bool {
	return name != own && slices.Contains(s.Servers, name) && m.Health != control.Silent && m.Health != control.Unwell
}
