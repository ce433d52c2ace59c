package membership

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/igmp"
)

// askGroup begins group-specific queries (RFC 3376 section 6.6.3.1): the group timer is lowered, the first query is due now.
func (g *group) askGroup(now time.Time, v times) {
	g.lower(now, v)
	g.queries, g.queryAt = v.count, now
}

func (g *group) lower(now time.Time, v times) {
	if limit := now.Add(v.lastMemberTime()); g.timer.After(limit) {
		g.timer = limit
	}
}

// askSources begins group-and-source-specific queries (section 6.6.3.2).
func (g *group) askSources(now time.Time, v times, sources []netip.Addr) {
	g.lowerSources(now, v, sources)
	for _, s := range sources {
		g.sourceQueries[s] = v.count
	}
	g.sourceQueryAt = now
}

func (g *group) lowerSources(now time.Time, v times, sources []netip.Addr) {
	limit := now.Add(v.lastMemberTime())
	for _, s := range sources {
		if t, ok := g.sources[s]; ok && t.After(limit) {
			g.sources[s] = limit
		}
	}
}

// dueQueries returns the queries to be sent now, and counts them down. Members that have answered are not asked again in a
// way that lowers other routers' timers: their queries carry the S flag.
func (g *group) dueQueries(now time.Time, v times, addr netip.Addr) []igmp.Query {
	var due []igmp.Query
	limit := now.Add(v.lastMemberTime())
	if g.queries > 0 && !g.queryAt.After(now) {
		g.queries--
		g.queryAt = now.Add(v.lastMember)
		due = append(due, igmp.Query{Group: addr, Suppress: g.timer.After(limit)})
	}
	if len(g.sourceQueries) == 0 || g.sourceQueryAt.After(now) {
		return due
	}
	var answered, open []netip.Addr
	for s, left := range g.sourceQueries {
		if t, ok := g.sources[s]; ok && t.After(limit) {
			answered = append(answered, s)
		} else {
			open = append(open, s)
		}
		if g.sourceQueries[s] = left - 1; left <= 1 {
			delete(g.sourceQueries, s)
		}
	}
	g.sourceQueryAt = now.Add(v.lastMember)
	if len(answered) > 0 {
		due = append(due, igmp.Query{Group: addr, Sources: sorted(answered), Suppress: true})
	}
	if len(open) > 0 {
		due = append(due, igmp.Query{Group: addr, Sources: sorted(open)})
	}
	return due
}

func sorted(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}
