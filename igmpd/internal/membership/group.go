package membership

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/igmp"
)

// group is the state of a public group on one port (RFC 3376 section 6.2). In INCLUDE mode all sources have running timers. In
// EXCLUDE mode sources with a running timer are the requested ones (X), those with a zero timer the excluded ones (Y).
type group struct {
	exclude bool
	timer   time.Time // group timer, in EXCLUDE mode only
	sources map[netip.Addr]time.Time
	v1Until time.Time // hosts of older versions are present, section 7.3.2
	v2Until time.Time

	queries       int // group-specific queries still to be sent
	queryAt       time.Time
	sourceQueries map[netip.Addr]int // group-and-source-specific ones, by source
	sourceQueryAt time.Time
}

// times are a port's timer values (RFC 3376 section 8).
type times struct {
	membership time.Duration // Group Membership Interval
	lastMember time.Duration // Last Member Query Interval
	count      int           // Last Member Query Count
}

func (v times) lastMemberTime() time.Duration { return v.lastMember * time.Duration(v.count) }

func newGroup() *group {
	return &group{sources: make(map[netip.Addr]time.Time), sourceQueries: make(map[netip.Addr]int)}
}

// fresh is how many of the sources the group does not have yet.
func (g *group) fresh(sources []netip.Addr) int {
	n := 0
	for _, s := range sources {
		if _, known := g.sources[s]; !known {
			n++
		}
	}
	return n
}

// running tells whether a source is to be forwarded by its own timer.
func running(t, now time.Time) bool { return t.After(now) }

// report applies one group record (RFC 3376 sections 6.4.1 and 6.4.2) and returns what the querier has to ask.
func (g *group) report(now time.Time, v times, r igmp.Record) (askGroup bool, askSources []netip.Addr) {
	kind, sources := r.Type, unique(r.Sources)
	switch { // section 7.3.2
	case now.Before(g.v1Until):
		switch kind {
		case igmp.BlockOldSources, igmp.ChangeToInclude:
			return false, nil
		case igmp.ChangeToExclude:
			sources = nil
		}
	case now.Before(g.v2Until):
		switch kind {
		case igmp.BlockOldSources:
			return false, nil
		case igmp.ChangeToExclude:
			sources = nil
		}
	}
	switch kind {
	case igmp.ModeIsInclude, igmp.AllowNewSources:
		g.allow(now, v, sources)
	case igmp.ModeIsExclude:
		g.toExclude(now, v, sources, now.Add(v.membership))
	case igmp.ChangeToInclude:
		askGroup, askSources = g.toInclude(now, v, sources)
	case igmp.ChangeToExclude:
		// the sources that stay requested: A*B in INCLUDE, A-Y in EXCLUDE mode
		askSources = g.toExclude(now, v, sources, g.timer)
	case igmp.BlockOldSources:
		askSources = g.block(now, sources)
	}
	return askGroup, askSources
}

// allow: INCLUDE(A) -> INCLUDE(A+B); EXCLUDE(X,Y) -> EXCLUDE(X+A,Y-A); timers of the named sources = GMI.
func (g *group) allow(now time.Time, v times, sources []netip.Addr) {
	for _, s := range sources {
		g.sources[s] = now.Add(v.membership)
	}
}

// toExclude: INCLUDE(A) -> EXCLUDE(A*B,B-A), (B-A)=0; EXCLUDE(X,Y) -> EXCLUDE(A-Y,Y*A), (A-X-Y)=fresh; others are deleted;
// group timer = GMI. It returns the requested sources of the new state.
func (g *group) toExclude(now time.Time, v times, sources []netip.Addr, fresh time.Time) (requested []netip.Addr) {
	next := make(map[netip.Addr]time.Time, len(sources))
	for _, s := range sources {
		t, known := g.sources[s]
		switch {
		case known:
			next[s] = t
		case g.exclude:
			next[s] = fresh
		default:
			next[s] = time.Time{}
		}
		if running(next[s], now) {
			requested = append(requested, s)
		}
	}
	g.sources, g.exclude, g.timer = next, true, now.Add(v.membership)
	return requested
}

// toInclude: INCLUDE(A) -> INCLUDE(A+B), ask A-B; EXCLUDE(X,Y) -> EXCLUDE(X+A,Y-A), ask X-A and the group.
func (g *group) toInclude(now time.Time, v times, sources []netip.Addr) (askGroup bool, ask []netip.Addr) {
	named := make(map[netip.Addr]bool, len(sources))
	for _, s := range sources {
		named[s] = true
	}
	for s, t := range g.sources {
		if !named[s] && running(t, now) {
			ask = append(ask, s)
		}
	}
	g.allow(now, v, sources)
	return g.exclude, ask
}

// block: INCLUDE(A) asks A*B; EXCLUDE(X,Y) -> EXCLUDE(X+(A-Y),Y), (A-X-Y)=group timer, asks A-Y.
func (g *group) block(now time.Time, sources []netip.Addr) (ask []netip.Addr) {
	for _, s := range sources {
		t, known := g.sources[s]
		switch {
		case known && running(t, now):
			ask = append(ask, s)
		case !known && g.exclude:
			g.sources[s] = g.timer
			ask = append(ask, s)
		}
	}
	return ask
}

// expire lets timers run out (RFC 3376 sections 6.3 and 6.5); gone means that the group has no more members here.
func (g *group) expire(now time.Time) (changed, gone bool) {
	if g.exclude && !running(g.timer, now) { // to INCLUDE mode with the sources whose timers run
		g.exclude, changed = false, true
	}
	for s, t := range g.sources {
		switch {
		case running(t, now):
		case !g.exclude:
			delete(g.sources, s)
			changed = true
		case !t.IsZero():
			g.sources[s] = time.Time{}
			changed = true
		}
	}
	return changed, !g.exclude && len(g.sources) == 0
}

// next is the earliest time at which anything of the group has to be done; zero: never.
func (g *group) next() time.Time {
	var at time.Time
	if g.exclude {
		at = earliest(at, g.timer)
	}
	for _, t := range g.sources {
		at = earliest(at, t)
	}
	if g.queries > 0 {
		at = earliest(at, g.queryAt)
	}
	if len(g.sourceQueries) > 0 {
		at = earliest(at, g.sourceQueryAt)
	}
	return at
}

// earliest is the earlier of two times; zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func unique(addrs []netip.Addr) []netip.Addr {
	seen := make(map[netip.Addr]bool, len(addrs))
	var out []netip.Addr
	for _, a := range addrs {
		if !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	return out
}
