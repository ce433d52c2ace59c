// Package members is who is on the control channel and how they are: frames and ticks in, events out, no sockets, no clocks. It is not for
// use by several goroutines at a time.
package members

import (
	"container/heap"
	"crypto/ed25519"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/wire"
)

// Defaults of Config.
const (
	DefaultDeadAfter = 250 * time.Millisecond
	DefaultSkew      = 5 * time.Second
	DefaultMembers   = 4096
)

// Bounds of what is kept of members.
const (
	MaxPause = 10 * time.Second // of a planned restart
	forget   = 24 * time.Hour   // after that a silent member is forgotten; as long as there is no leader its standbys serve by its silence
	grace    = 2 * time.Second  // restored members may be late by that beyond the skew
	// copyWithin is how much later than the original a copy may come by another way.
	copyWithin = 50 * time.Millisecond
)

// Config says what counts. Zero fields take the defaults.
type Config struct {
	Group     netip.Addr
	Self      identity.ID // its frames come back: they are nobody's
	Authority ed25519.PublicKey
	DeadAfter time.Duration
	Skew      time.Duration // between the clocks of members, at most
	Started   time.Time     // what was said before proves nothing
	Members   int           // known at a time
}

// Members is the state.
type Members struct {
	cfg     Config
	keys    []*wire.Key
	byName  map[string]*member
	byID    map[identity.ID]*member
	queue   deadlines
	parts   assembler
	work    budgets // of signatures
	counted Counters

	last   time.Time // of the last call
	floor  time.Time // silence is counted from here: before, this process may have been deaf
	heard  time.Time // anybody
	others time.Time // since when somebody has been heard; zero: nobody has been
}

// New returns a Members that knows nobody.
func New(cfg Config) *Members {
	if cfg.DeadAfter <= 0 {
		cfg.DeadAfter = DefaultDeadAfter
	}
	if cfg.Skew <= 0 {
		cfg.Skew = DefaultSkew
	}
	if cfg.Members <= 0 {
		cfg.Members = DefaultMembers
	}
	return &Members{
		cfg:     cfg,
		byName:  make(map[string]*member),
		byID:    make(map[identity.ID]*member),
		parts:   assembler{pending: make(map[origin]*assembly)},
		counted: Counters{Refused: make(map[Reason]uint64)},
	}
}

// SetKeys replaces the keys that frames are taken under: old and new ones while the group's key rolls.
func (m *Members) SetKeys(keys []*wire.Key) { m.keys = slices.Clone(keys) }

// member is one that was heard, or that is known from before.
type member struct {
	control.Member
	id       identity.ID
	public   ed25519.PublicKey
	notAfter time.Time
	reported control.Health // Available or Unwell, by its last report
	stamp    int64          // ns, the sender's clock at its last report
	anchors  []wire.Anchor  // where its chain is, and where the next one begins
	spoken   window         // numbers of the messages that were taken
	via      []hearing
	work     budgets
	said     uint64    // number of the report that counts: the latest
	due      time.Time // its place in the queue
	index    int
}

// hearing is when an interface was the last to bring a member's frames.
type hearing struct {
	iface string
	at    time.Time
}

// hear notes that something certainly new of the member came in by iface.
func (p *member) hear(now time.Time, iface string) (another bool) {
	p.Heard = now
	return p.hearVia(now, iface)
}

// hearVia notes a copy: it proves the way, and nothing else.
func (p *member) hearVia(now time.Time, iface string) (another bool) {
	for i := range p.via {
		if p.via[i].iface == iface {
			p.via[i].at = now
			return false
		}
	}
	if len(p.via) == maxVia {
		return false
	}
	p.via = append(p.via, hearing{iface, now})
	p.name()
	return true
}

// maxVia bounds the interfaces that are kept of a member.
const maxVia = 64

// expireVia forgets the interfaces that have brought nothing since.
func (p *member) expireVia(since time.Time) (fewer bool) {
	n := len(p.via)
	p.via = slices.DeleteFunc(p.via, func(h hearing) bool { return !h.at.After(since) })
	if len(p.via) == n {
		return false
	}
	p.name()
	return true
}

// name brings Via up to date.
func (p *member) name() {
	names := make([]string, len(p.via))
	for i, h := range p.via {
		names[i] = h.iface
	}
	slices.Sort(names)
	p.Via = names
}

// set changes the health.
func (p *member) set(now time.Time, h control.Health) (changed bool) {
	if p.Health == h {
		return false
	}
	p.Health, p.Since = h, now
	return true
}

// Members returns all, by name.
func (m *Members) Members() []control.Member {
	out := make([]control.Member, 0, len(m.byName))
	for _, p := range m.byName {
		out = append(out, p.Member)
	}
	slices.SortFunc(out, func(a, b control.Member) int { return compare(a.Name, b.Name) })
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Deaf says that nobody is heard any more, though somebody was: whoever is that is likely to be the one who is cut off.
func (m *Members) Deaf(now time.Time) bool {
	return !m.others.IsZero() && now.Sub(later(m.heard, m.floor)) >= m.cfg.DeadAfter
}

// Alone says that nobody has been heard since the start.
func (m *Members) Alone() bool { return m.others.IsZero() }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// awake notices that this process itself stood still: the frames of that time wait in the sockets, and nobody's silence
// counts before they were read.
func (m *Members) awake(now time.Time) {
	if !m.last.IsZero() && now.Sub(m.last) > m.cfg.DeadAfter/2 {
		m.floor = now
		m.counted.Stalls++
	}
	m.last = now
}

// Next is when Tick has to be called at the latest. It is never far away: that is how a stall of the caller is noticed.
func (m *Members) Next() time.Time {
	next := m.last.Add(m.cfg.DeadAfter / 4)
	if len(m.queue) > 0 && m.queue[0].due.Before(next) {
		next = m.queue[0].due
	}
	return next
}

// Tick finds out who has gone silent.
func (m *Members) Tick(now time.Time) []control.Event {
	m.awake(now)
	m.parts.expire(now)
	var events []control.Event
	for len(m.queue) > 0 && !m.queue[0].due.After(now) {
		p := m.queue[0]
		due, keep := m.examine(now, p, &events)
		if !keep {
			heap.Pop(&m.queue)
			delete(m.byName, p.Name)
			delete(m.byID, p.id)
			p.set(now, control.Unknown)
			events = append(events, control.Changed{Member: p.Member})
			continue
		}
		p.due = due
		heap.Fix(&m.queue, 0)
	}
	return events
}

// examine looks at a member whose time has come and says when to look again, and whether to keep it. Frames do not
// move a member in the queue; so that each costs little, its time is set right here.
func (m *Members) examine(now time.Time, p *member, events *[]control.Event) (due time.Time, keep bool) {
	if p.Health == control.Unknown {
		return m.examineUnknown(now, p, events)
	}
	heard := later(p.Heard, m.floor)
	silent := later(heard.Add(m.cfg.DeadAfter), p.Paused)
	changed := false
	if m.floor.Before(now.Add(-m.cfg.DeadAfter)) {
		changed = p.expireVia(now.Add(-m.cfg.DeadAfter))
	}
	if !now.Before(silent) {
		changed = p.set(now, control.Silent) || changed
	}
	if changed {
		*events = append(*events, control.Changed{Member: p.Member})
	}
	switch {
	case p.Health == control.Silent && now.Sub(p.Since) >= forget:
		return time.Time{}, false
	case p.Health == control.Silent:
		return p.Since.Add(forget), true
	case len(p.via) > 1:
		return soonest(silent, now.Add(m.cfg.DeadAfter/2)), true // a way that ends while others go on
	}
	return silent, true
}

// examineUnknown decides about a member that is known from before this process began, or that has not been heard.
func (m *Members) examineUnknown(now time.Time, p *member, events *[]control.Event) (due time.Time, keep bool) {
	wait := m.cfg.Skew + grace
	if m.others.IsZero() {
		return now.Add(wait / 4), true
	}
	if due := later(later(m.others, m.floor).Add(wait), p.Paused); now.Before(due) {
		return due, true
	}
	p.set(now, control.Silent)
	*events = append(*events, control.Changed{Member: p.Member})
	return now.Add(forget), true
}

func soonest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// deadlines is a heap of members by due.
type deadlines []*member

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}
func (d *deadlines) Push(x any) {
	p := x.(*member)
	p.index = len(*d)
	*d = append(*d, p)
}
func (d *deadlines) Pop() any {
	old := *d
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	return p
}
