package membership

import (
	"maps"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/igmp"
)

// unsolicitedInterval is the Unsolicited Report Interval (RFC 3376 section 8.11).
const unsolicitedInterval = time.Second

// merged is what all ports together want of a public group: the database of RFC 4605 section 4.1.
type merged struct {
	exclude bool
	sources map[netip.Addr]bool
}

func (m merged) equal(o merged) bool {
	return m.exclude == o.exclude && maps.Equal(m.sources, o.sources)
}

func (m merged) record(g netip.Addr, change bool) igmp.Record {
	r := igmp.Record{Type: igmp.ModeIsInclude, Group: g}
	if m.exclude {
		r.Type = igmp.ModeIsExclude
	}
	if change {
		r.Type += igmp.ChangeToInclude - igmp.ModeIsInclude
	}
	for s := range m.sources {
		r.Sources = append(r.Sources, s)
	}
	sorted(r.Sources)
	return r
}

// merged merges by RFC 3376 section 3.2: EXCLUDE of what nobody wants, or INCLUDE of what anybody wants.
func (t *Table) merged(now time.Time, addr netip.Addr) merged {
	m := merged{sources: make(map[netip.Addr]bool)}
	named := make(map[netip.Addr]bool)
	for _, p := range t.ports {
		if g := p.groups[addr]; g != nil && !p.Upstream {
			m.exclude = m.exclude || g.exclude
			for s := range g.sources {
				named[s] = true
			}
		}
	}
	for s := range named {
		wanted := false
		for _, p := range t.ports {
			g := p.groups[addr]
			wanted = wanted || g != nil && !p.Upstream && g.forwards(now, s)
		}
		if wanted != m.exclude {
			m.sources[s] = true
		}
	}
	return m
}

// none is what is wanted of a group without members.
func (m merged) none() bool { return !m.exclude && len(m.sources) == 0 }

// proxy is the host side of the ports toward the roots.
type proxy struct {
	told map[netip.Addr]merged // as last reported; groups without members are left out
	left map[netip.Addr]int    // repetitions still to be sent
	at   time.Time
}

func newProxy() proxy {
	return proxy{told: make(map[netip.Addr]merged), left: make(map[netip.Addr]int)}
}

// tellUpstream reports a group when it is not as last told: now, and again robustness - 1 times.
func (t *Table) tellUpstream(now time.Time, g netip.Addr) {
	m := t.merged(now, g)
	if told := t.proxy.told[g]; told.equal(m) {
		return
	}
	if t.proxy.told[g] = m; m.none() {
		delete(t.proxy.told, g)
	}
	t.act(SendReport{[]igmp.Record{m.record(g, true)}})
	if t.cfg.Robustness < 2 {
		return
	}
	t.proxy.left[g] = t.cfg.Robustness - 1
	if t.proxy.at.IsZero() {
		t.proxy.at = now.Add(unsolicitedInterval)
	}
	t.arm(t.proxy.at)
}

func (t *Table) tickProxy(now time.Time) {
	if len(t.proxy.left) == 0 {
		t.proxy.at = time.Time{}
		return
	}
	if t.proxy.at.After(now) {
		t.arm(t.proxy.at)
		return
	}
	var records []igmp.Record
	for g, left := range t.proxy.left {
		records = append(records, t.merged(now, g).record(g, true))
		if t.proxy.left[g] = left - 1; left <= 1 {
			delete(t.proxy.left, g)
		}
	}
	t.act(SendReport{records})
	t.proxy.at = now.Add(unsolicitedInterval)
	t.arm(t.proxy.at)
}

// answer reports what a router toward the roots asks for.
func (t *Table) answer(now time.Time, q igmp.Query) {
	var records []igmp.Record
	for g, m := range t.proxy.told {
		if q.General() || q.Group == g {
			records = append(records, m.record(g, false))
		}
	}
	if len(records) > 0 {
		t.act(SendReport{records})
	}
}
