package routing

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/flowspec"
)

// compile makes rules of users anew where they, or the VIPs that are announced, have changed: a receiver takes rules of no others (RFC 8955
// section 6).
func (l *Loop) compile(now time.Time) {
	if l.FlowSpec.Most == 0 || l.result.Reasons != nil && l.compiledAt == l.announcing.Version() {
		return
	}
	users := make([]flowspec.Users, 0, len(l.users))
	for _, u := range l.users {
		u.VIPs = slices.DeleteFunc(slices.Clone(u.VIPs), func(a netip.Addr) bool { return !l.isAnnounced(a) })
		if len(u.VIPs) > 0 {
			users = append(users, u)
		}
	}
	l.result, l.compiledAt = flowspec.Compile(users, l.FlowSpec), l.announcing.Version()
	isOther := !maps.Equal(l.said, l.result.Reasons)
	if l.said = l.result.Reasons; isOther && len(l.said) > 0 {
		l.Log.Info("BGP: users go by the director, for FlowSpec rules cannot say where", "portions", l.result.Reasons)
	}
	if l.rules.Want(now, l.result.Rules) {
		l.changed = true
	}
}

func (l *Loop) isAnnounced(a netip.Addr) bool {
	return slices.ContainsFunc(l.announcing.Paths(), func(p bgp.Path) bool { return p.Prefix.IsSingleIP() && p.Prefix.Addr() == a })
}

// push has the speaker have what is wanted, where that has changed.
func (l *Loop) push() {
	if !l.met || !l.changed && l.pathsAt == l.announcing.Version() {
		return
	}
	l.changed, l.pathsAt = false, l.announcing.Version()
	l.version++
	l.applier.want(order{l.version, l.pathsAt, l.desired()})
}

func (l *Loop) desired() bgp.Desired {
	d := l.Base
	d.Neighbors = slices.Clone(d.Neighbors)
	for i, n := range d.Neighbors {
		d.Neighbors[i].Down = slices.Contains(l.out, n.Address)
	}
	d.VIPs, d.Keep = slices.Concat(d.VIPs, l.vips), l.keeps
	d.Silent = l.keeps && len(l.VIPs) > 0 && len(l.announcing.Paths()) == 0
	d.Unicast = slices.Concat(d.Unicast, l.announcing.Paths())
	d.Labelled = slices.Concat(d.Labelled, l.announcing.Hosts())
	d.Rules = slices.Concat(d.Rules, l.rules.Rules())
	return d
}

// applied takes what became of a version, or at first what was there before.
func (l *Loop) applied(now time.Time, r result) {
	if r.met {
		l.met = true
		if r.goesOn {
			l.announcing.Resume(now)
		}
		return
	}
	l.answer(r)
	if r.err != nil {
		l.Log.Warn("BGP: the speaker has not taken all, trying again", "err", r.err, "after", applyAgain)
		return
	}
	select {
	case <-l.ready:
	default:
		close(l.ready)
	}
	if r.told {
		l.announcing.Told(now, r.paths)
		if r.version == l.version && l.rules.Told(now) {
			l.changed = true
		}
	}
}
