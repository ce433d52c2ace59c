package membership

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/igmp"
)

// IsPublic tells whether reports of a group count without a signature: 224.0.1.0 to 231.255.255.255 (Fig 2). Groups of the
// link, 224.0.0.0/24, are never routed and have no state.
func IsPublic(g netip.Addr) bool {
	if !g.Is4() {
		return false
	}
	a := g.As4()
	return a[0]>>3 == 224>>3 && (a[0] != 224 || a[1] != 0 || a[2] != 0)
}

// Report takes a report of IGMPv3; records of groups that are not public change nothing. What follows for a group is done once,
// however many records it has.
func (t *Table) Report(now time.Time, portName string, records []igmp.Record) []Action {
	var order []netip.Addr
	before := make(map[netip.Addr][]Route)
	for _, r := range records {
		if _, seen := before[r.Group]; !seen {
			order = append(order, r.Group)
			before[r.Group] = t.routes(now, r.Group)
		}
		t.record(now, portName, r)
	}
	for _, g := range order {
		t.reported(now, portName, g, before[g])
	}
	return t.take()
}

// V1Report and V2Report take reports of older versions: they count as MODE_IS_EXCLUDE{} (RFC 3376 section 7.3.2).
func (t *Table) V1Report(now time.Time, portName string, addr netip.Addr) []Action {
	actions := t.Report(now, portName, []igmp.Record{{Type: igmp.ModeIsExclude, Group: addr}})
	if g := t.groupAt(portName, addr); g != nil {
		g.v1Until = now.Add(t.cfg.Membership())
	}
	return actions
}

// V2Report is to V1Report what IGMPv2 is to IGMPv1.
func (t *Table) V2Report(now time.Time, portName string, addr netip.Addr) []Action {
	actions := t.Report(now, portName, []igmp.Record{{Type: igmp.ModeIsExclude, Group: addr}})
	if g := t.groupAt(portName, addr); g != nil {
		g.v2Until = now.Add(t.cfg.Membership())
	}
	return actions
}

// Leave takes a leave of IGMPv2, which counts as CHANGE_TO_INCLUDE_MODE{}.
func (t *Table) Leave(now time.Time, portName string, addr netip.Addr) []Action {
	return t.Report(now, portName, []igmp.Record{{Type: igmp.ChangeToInclude, Group: addr}})
}

// groupAt is a group's state on a port, nil where it has none.
func (t *Table) groupAt(portName string, addr netip.Addr) *group {
	if p := t.ports[portName]; p != nil {
		return p.groups[addr]
	}
	return nil
}

// record applies one group record, within the limits.
func (t *Table) record(now time.Time, portName string, r igmp.Record) {
	p := t.ports[portName]
	if p == nil || !p.Members || !IsPublic(r.Group) || r.Type < igmp.ModeIsInclude || r.Type > igmp.BlockOldSources {
		return
	}
	g := p.groups[r.Group]
	if g == nil {
		leaving := r.Type == igmp.BlockOldSources || r.Type != igmp.ModeIsExclude && r.Type != igmp.ChangeToExclude && len(r.Sources) == 0
		if leaving {
			return
		}
		g = newGroup()
	}
	fresh := g.fresh(r.Sources)
	if p.groups[r.Group] == nil && len(p.groups) >= t.cfg.Limits.Groups || len(g.sources)+fresh > t.cfg.Limits.Sources ||
		p.sources+fresh > t.cfg.Limits.PortSources {
		t.dropped++
		return
	}
	p.groups[r.Group] = g
	had := len(g.sources)
	askGroup, askSources := g.report(now, t.times(), r)
	p.sources += len(g.sources) - had
	if p.querier.is(now) {
		if askGroup {
			g.askGroup(now, t.times())
		}
		if len(askSources) > 0 {
			g.askSources(now, t.times(), askSources)
		}
	}
}

// reported does what follows of a report for a group: queries, timers, and who has to know.
func (t *Table) reported(now time.Time, portName string, addr netip.Addr, before []Route) {
	g := t.groupAt(portName, addr)
	if g == nil {
		return
	}
	if p := t.ports[portName]; p.querier.is(now) {
		for _, q := range g.dueQueries(now, t.times(), addr) {
			t.ask(p, q)
		}
	}
	t.arm(g.next())
	if !slices.EqualFunc(before, t.routes(now, addr), Route.equal) {
		t.act(Changed{})
	}
	t.tellUpstream(now, addr)
}

// Query takes another router's query: it may win the election, and it lowers timers (RFC 3376 sections 6.6.1 and 6.6.2).
func (t *Table) Query(now time.Time, portName string, source netip.Addr, q igmp.Query) []Action {
	p := t.ports[portName]
	if p == nil || source == p.Address {
		return nil
	}
	if p.Members {
		p.querier.heard(now, source, t.cfg.otherQuerierPresent())
		t.arm(p.querier.next())
		if g := p.groups[q.Group]; g != nil && !q.Suppress && !p.querier.is(now) {
			if len(q.Sources) == 0 {
				g.lower(now, t.times())
			}
			g.lowerSources(now, t.times(), q.Sources)
			t.arm(g.next())
		}
	}
	if p.Upstream {
		t.answer(now, q)
	}
	return t.take()
}

// Route is the forwarding state of a public group, or of one source of it: out of which ports.
type Route struct {
	Group  netip.Addr
	Source netip.Addr // invalid: every source without a route of its own
	Out    []string   // sorted; empty: to be dropped
}

func (r Route) equal(o Route) bool {
	return r.Group == o.Group && r.Source == o.Source && slices.Equal(r.Out, o.Out)
}

// Public returns the routes of all public groups, sorted.
func (t *Table) Public(now time.Time) []Route {
	var routes []Route
	for _, g := range t.publicGroups() {
		routes = append(routes, t.routes(now, g)...)
	}
	return routes
}

func (t *Table) publicGroups() []netip.Addr {
	seen := make(map[netip.Addr]bool)
	for _, p := range t.ports {
		for g := range p.groups {
			seen[g] = true
		}
	}
	all := make([]netip.Addr, 0, len(seen))
	for g := range seen {
		all = append(all, g)
	}
	return sorted(all)
}

// routes brings the ports' states together: every source that any port names has a route where it differs from the others.
func (t *Table) routes(now time.Time, addr netip.Addr) []Route {
	var any []string
	out := make(map[netip.Addr][]string)
	for _, p := range t.ports {
		if g := p.groups[addr]; g != nil {
			if g.exclude {
				any = append(any, p.Name)
			}
			for s := range g.sources {
				out[s] = nil
			}
		}
	}
	for s := range out {
		for _, p := range t.ports {
			if g := p.groups[addr]; g != nil && g.forwards(now, s) {
				out[s] = append(out[s], p.Name)
			}
		}
		slices.Sort(out[s])
	}
	slices.Sort(any)
	var routes []Route
	if len(any) > 0 {
		routes = append(routes, Route{Group: addr, Out: any})
	}
	sources := make([]netip.Addr, 0, len(out))
	for s := range out {
		sources = append(sources, s)
	}
	for _, s := range sorted(sources) {
		if !slices.Equal(out[s], any) {
			routes = append(routes, Route{Group: addr, Source: s, Out: out[s]})
		}
	}
	return routes
}

// forwards is RFC 3376 section 6.3: what the port gets of a source.
func (g *group) forwards(now time.Time, source netip.Addr) bool {
	t, named := g.sources[source]
	if named {
		return running(t, now)
	}
	return g.exclude
}

// publicChanged tells the forwarder and the routers toward the roots.
func (t *Table) publicChanged(now time.Time, g netip.Addr) {
	t.act(Changed{})
	t.tellUpstream(now, g)
}
