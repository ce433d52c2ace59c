package announcing

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// enter begins a phase.
func (a *Announcing) enter(now time.Time, p Phase) {
	hosts := a.Hosts()
	a.phase, a.step = p, step{begun: now}
	if a.renew(now); !slices.EqualFunc(hosts, a.Hosts(), sameHost) {
		a.version++
	}
	a.step.version = a.version
	if a.told >= a.version {
		a.step.told = now
	}
}

// settle takes what has changed, and goes on to the next phase where nothing is waited for any more.
func (a *Announcing) settle(now time.Time) bool {
	before := a.version
	for a.renew(now); a.waits() && !now.Before(a.due()); {
		forced := a.step.told.IsZero() && a.due().After(a.step.begun)
		a.enter(now, a.phase+1)
		a.step.forced = forced
	}
	return a.version != before
}

// waits says whether the phase ends by itself: that of coming in does not before there is something to announce.
func (a *Announcing) waits() bool {
	switch a.phase {
	case Entering:
		return a.hasSome()
	case Leaving, Withdrawn:
		return true
	}
	return false
}

// due is when the phase is over: neighbors were told and had time to settle, or patience is over. Where no path says anything else in it there is
// nothing to wait for.
func (a *Announcing) due() time.Time {
	s := a.step
	switch {
	case a.phase != Withdrawn && (!a.hasSome() || a.config.Soft.isNone()):
		return s.begun
	case s.told.IsZero():
		return s.begun.Add(a.config.Patience)
	}
	return s.told.Add(a.config.Settle)
}

func (s Soft) isNone() bool { return s.Prepend == 0 && s.MED == nil && len(s.Communities) == 0 }

// renew computes what is to be announced.
func (a *Announcing) renew(now time.Time) {
	var paths []bgp.Path
	if !a.config.Server && a.phase <= Leaving {
		paths = a.wanted(now)
	}
	if slices.EqualFunc(paths, a.paths, samePath) {
		return
	}
	began := len(a.paths) == 0
	a.counts.Announced += missing(a.paths, paths)
	a.counts.Withdrawn += missing(paths, a.paths)
	a.paths = paths
	a.version++
	a.waitAnew(now, began)
}

// waitAnew begins to wait when there is something to come in with.
func (a *Announcing) waitAnew(now time.Time, began bool) {
	if a.phase == Entering && began {
		a.step = step{version: a.version, begun: now}
	}
}

// hasSome says whether there is something that comes and goes.
func (a *Announcing) hasSome() bool {
	if a.config.Server {
		return len(a.hosts) > 0
	}
	return len(a.paths) > 0
}

// missing is how many of all have a prefix that is not in some, which are in order.
func missing(some, all []bgp.Path) (n uint64) {
	for _, p := range all {
		if _, there := slices.BinarySearchFunc(some, p.Prefix, func(o bgp.Path, at netip.Prefix) int { return o.Prefix.Compare(at) }); !there {
			n++
		}
	}
	return n
}

// samePath compares what paths of ours say.
func samePath(x, y bgp.Path) bool {
	return x.Prefix == y.Prefix && x.NextHop == y.NextHop && x.Prepend == y.Prepend && slices.Equal(x.Communities, y.Communities) && sameMED(x.MED, y.MED)
}

func sameHost(x, y bgp.LabelledPath) bool { return x.Label == y.Label && samePath(x.Path, y.Path) }

func sameMED(a, b *uint32) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func (a *Announcing) wanted(now time.Time) (out []bgp.Path) {
	for addr, v := range a.vips {
		if !v.present || v.reach != Reached || now.Before(v.damped) {
			continue
		}
		out = append(out, a.path(netip.PrefixFrom(addr, addr.BitLen())))
	}
	for _, cover := range a.config.Covers {
		if slices.ContainsFunc(out, func(p bgp.Path) bool {
			return p.Prefix.IsSingleIP() && cover.Contains(p.Prefix.Addr()) && p.Prefix != cover
		}) {
			out = append(out, a.path(cover))
		}
	}
	slices.SortFunc(out, func(x, y bgp.Path) int { return x.Prefix.Compare(y.Prefix) })
	return slices.CompactFunc(out, func(x, y bgp.Path) bool { return x.Prefix == y.Prefix })
}

func (a *Announcing) path(p netip.Prefix) bgp.Path {
	if a.phase == In {
		return bgp.Path{Prefix: p}
	}
	return a.soft(bgp.Path{Prefix: p})
}

// soft is a path that nobody prefers.
func (a *Announcing) soft(out bgp.Path) bgp.Path {
	out.Prepend, out.MED = a.config.Soft.Prepend, a.config.Soft.MED
	out.Communities = slices.Sorted(slices.Values(a.config.Soft.Communities))
	return out
}
