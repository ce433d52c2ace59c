package bgppolicy

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// NoLabel is the label of a route without one.
const NoLabel = 1 << 20

// Route is a prefix that is to have a label: a FEC's.
type Route struct {
	Prefix  netip.Prefix
	NextHop netip.Addr
	Label   uint32     // that the next hop wants (RFC 8277); NoLabel: the path has none
	From    netip.Addr // neighbor
	Stale   bool       // the neighbor, or the speaker, is away: as it was told last
}

// Changes are what has come of events since the last time. A prefix is in one of the lists.
type Changes struct {
	Added, Changed []Route
	Stale, Fresh   []Route // nothing else of them has changed
	Gone           []netip.Prefix
}

// Empty says whether there are none.
func (c Changes) Empty() bool {
	return len(c.Added)+len(c.Changed)+len(c.Stale)+len(c.Fresh)+len(c.Gone) == 0
}

// FollowConfig is what is followed.
type FollowConfig struct {
	Import Policy
	// Most is how many prefixes are kept; MostOf of one neighbor. 0: no limit.
	Most, MostOf int
	// Restart is how long routes of who is away are kept (RFC 4724, at most 4095 s), LongLived how long beyond that (RFC 9494), but for those that
	// say that they are not to be. Zero: not at all.
	Restart, LongLived time.Duration
}

// Follow makes of best paths, as they come and go, what changes of FECs: of any number of events about a prefix one change. It keeps those that
// the policy lets pass, and nothing of others. Not safe for concurrent use.
type Follow struct {
	config  FollowConfig
	vips    []netip.Prefix
	entries map[netip.Prefix]*entry
	held    int                // entries with a path; of others it has yet to be said that they are gone
	of      map[netip.Addr]int // paths kept, by neighbor
	away    map[netip.Addr]absence
	dirty   map[netip.Prefix]bool
	counts  Counts
}

// entry is what there is of a prefix.
type entry struct {
	plain, labelled *kept // a labelled path counts before one without
	told            Route // as in Changes last; zero: not yet
}

type kept struct {
	Route
	short bool // not kept as long-lived stale
}

// absence is of a neighbor that is away, or was until its routes have been told again.
type absence struct {
	until time.Time // what is stale then goes
	long  time.Time // what may be kept longer goes then
	back  bool      // it is there again
}

// New follows nothing yet.
func New(c FollowConfig) *Follow {
	return &Follow{
		config: c, entries: map[netip.Prefix]*entry{}, of: map[netip.Addr]int{}, away: map[netip.Addr]absence{}, dirty: map[netip.Prefix]bool{},
	}
}

// SetVIPs says which prefixes are ours: what was taken of them goes.
func (f *Follow) SetVIPs(vips []netip.Prefix) {
	f.vips = slices.Clone(vips)
	for p, e := range f.entries {
		if slices.ContainsFunc(vips, func(v netip.Prefix) bool { return inside(p, v) }) {
			f.put(p, e, &e.plain, nil)
			f.put(p, e, &e.labelled, nil)
			f.counts[OwnVIP]++
		}
	}
}

// Take takes what a speaker tells.
func (f *Follow) Take(now time.Time, e bgp.Event) {
	switch {
	case e.Learned != nil && e.Learned.Unicast != nil:
		f.learned(*e.Learned.Unicast, e.Learned.Unicast.Family(), NoLabel)
	case e.Learned != nil && e.Learned.Labelled != nil:
		f.learned(e.Learned.Labelled.Path, e.Learned.Labelled.Family(), e.Learned.Labelled.Label)
	case e.Lost != nil:
		f.lost(e.Lost.Prefix, e.Lost.Family.Labelled())
	case e.Neighbor != nil && e.Neighbor.State == bgp.Established:
		f.up(now, e.Neighbor.Address)
	case e.Neighbor != nil:
		f.down(now, e.Neighbor.Address)
	}
}

// SpeakerLost says that there is no speaker any more: all neighbors are away.
func (f *Follow) SpeakerLost(now time.Time) {
	for from := range f.of {
		f.down(now, from)
	}
}

func (f *Follow) learned(p bgp.Path, family bgp.Family, label uint32) {
	taken, why := f.config.Import.Check(Path{p, family}, p.From, f.vips)
	if why == Passes && !p.NextHop.IsValid() || label > NoLabel {
		why = Malformed
	}
	e := f.entries[p.Prefix]
	at := e.at(family.Labelled())
	if why == Passes && (at == nil || *at == nil) && f.full(e, p.From) {
		why = OverLimit
	}
	f.counts[why]++
	if why != Passes {
		if at != nil {
			f.put(p.Prefix, e, at, nil)
		}
		return
	}
	if e == nil {
		e = &entry{}
		f.entries[p.Prefix] = e
		at = e.at(family.Labelled())
	}
	f.put(p.Prefix, e, at, &kept{
		Route{taken.Prefix, taken.NextHop, label, taken.From, taken.Stale}, slices.Contains(taken.Communities, bgp.NoLLGR),
	})
}

func (f *Follow) full(e *entry, from netip.Addr) bool {
	return (e == nil || e.isEmpty()) && f.config.Most > 0 && f.held >= f.config.Most || f.config.MostOf > 0 && f.of[from] >= f.config.MostOf
}

// at is where a path is kept; nil: of nothing.
func (e *entry) at(labelled bool) **kept {
	switch {
	case e == nil:
		return nil
	case labelled:
		return &e.labelled
	}
	return &e.plain
}

func (f *Follow) lost(p netip.Prefix, labelled bool) {
	if e := f.entries[p]; e != nil {
		f.put(p, e, e.at(labelled), nil)
	}
}

// put replaces what is kept at a place.
func (f *Follow) put(p netip.Prefix, e *entry, at **kept, k *kept) {
	if was := *at; was != nil {
		if f.of[was.From]--; f.of[was.From] == 0 {
			delete(f.of, was.From)
		}
	} else if k == nil {
		return
	}
	was := e.isEmpty()
	if *at = k; k != nil {
		f.of[k.From]++
	}
	switch is := e.isEmpty(); {
	case was && !is:
		f.held++
	case is && !was:
		f.held--
	}
	if f.dirty[p] = true; e.isEmpty() && e.told == (Route{}) { // nobody has heard of it
		delete(f.dirty, p)
		delete(f.entries, p)
	}
}

func (e *entry) isEmpty() bool { return e.plain == nil && e.labelled == nil }

// down begins a neighbor's absence. Who goes again before it has come back has no more time by it; what it had not told again when it goes
// once more is gone (RFC 4724 section 4.2).
func (f *Follow) down(now time.Time, from netip.Addr) {
	before, known := f.away[from]
	if known && !before.back || f.of[from] == 0 {
		return
	}
	a := absence{until: now.Add(f.config.Restart)}
	a.long = a.until.Add(f.config.LongLived)
	f.away[from] = a
	f.each(from, func(p netip.Prefix, e *entry, at **kept) {
		switch stale := **at; {
		case !stale.Stale:
			stale.Stale = true
			f.put(p, e, at, &stale)
		case known:
			f.put(p, e, at, nil)
		}
	})
	f.Tick(now)
}

// up ends it: what is not told again in time goes.
func (f *Follow) up(now time.Time, from netip.Addr) {
	if a, gone := f.away[from]; gone && !a.back {
		a.back, a.until = true, now.Add(f.config.Restart)
		a.long = a.until
		f.away[from] = a
	}
}

// each calls with all that is kept of a neighbor.
func (f *Follow) each(from netip.Addr, do func(p netip.Prefix, e *entry, at **kept)) {
	for p, e := range f.entries {
		for _, at := range []**kept{&e.plain, &e.labelled} {
			if *at != nil && (*at).From == from {
				do(p, e, at)
			}
		}
	}
}

// Tick lets time pass: stale routes go whose time is over.
func (f *Follow) Tick(now time.Time) {
	for from, a := range f.away {
		if now.Before(a.until) {
			continue
		}
		all := !now.Before(a.long)
		f.each(from, func(p netip.Prefix, e *entry, at **kept) {
			if (*at).Stale && (all || (*at).short) {
				f.put(p, e, at, nil)
			}
		})
		if all {
			delete(f.away, from)
		}
	}
}

// Next is when Tick has something to do; zero: never.
func (f *Follow) Next(now time.Time) time.Time {
	var next time.Time
	for _, a := range f.away {
		for _, t := range []time.Time{a.until, a.long} {
			if t.After(now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

// Changes are those since the last call, by prefix.
func (f *Follow) Changes() Changes {
	var out Changes
	for p := range f.dirty {
		e := f.entries[p]
		is, ok := e.route()
		was := e.told
		e.told = is
		switch fresh := was; {
		case !ok:
			delete(f.entries, p)
			if was != (Route{}) {
				out.Gone = append(out.Gone, p)
			}
		case was == (Route{}):
			out.Added = append(out.Added, is)
		case was == is:
		default:
			fresh.Stale = is.Stale
			switch {
			case fresh != is:
				out.Changed = append(out.Changed, is)
			case is.Stale:
				out.Stale = append(out.Stale, is)
			default:
				out.Fresh = append(out.Fresh, is)
			}
		}
	}
	clear(f.dirty)
	for _, list := range [][]Route{out.Added, out.Changed, out.Stale, out.Fresh} {
		slices.SortFunc(list, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	}
	slices.SortFunc(out.Gone, netip.Prefix.Compare)
	return out
}

// route is what holds of a prefix.
func (e *entry) route() (Route, bool) {
	switch {
	case e.labelled != nil:
		return e.labelled.Route, true
	case e.plain != nil:
		return e.plain.Route, true
	}
	return Route{}, false
}

// Routes are all that are kept, in no order.
func (f *Follow) Routes(yield func(Route) bool) {
	for _, e := range f.entries {
		if r, ok := e.route(); ok && !yield(r) {
			return
		}
	}
}

// Len is how many prefixes there are.
func (f *Follow) Len() int { return f.held }

// Counts say what became of the paths that came.
func (f *Follow) Counts() Counts { return f.counts }
