// Package membership is the multicast router's group state: public groups by plain reports of IGMPv1 to IGMPv3 (RFC 3376 section 6),
// private groups by complete sets of extended joins that were admitted. It is pure: events and the time go in, actions come
// out; the caller sends, forwards and keeps the snapshot. A Table belongs to one goroutine.
package membership

import (
	"errors"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/steer"
)

// What Join refuses; errors wrap one of them, or an error of the join's assembler.
var (
	ErrStale   = errors.New("stale epoch")
	ErrOverlap = errors.New("overlaps another requester's portions of the same epoch")
	ErrComplex = errors.New("the group's portions cannot be steered")
	ErrFull    = errors.New("no room")
)

// Config holds the timers of [querier] and the bounds.
type Config struct {
	QueryInterval           time.Duration
	QueryResponseInterval   time.Duration
	LastMemberQueryInterval time.Duration
	Robustness              int // 1..7
	Limits                  Limits
}

// Limits bound the state. Zero fields take the defaults.
type Limits struct {
	Groups      int         // public groups a port, default 4096
	Sources     int         // sources of a public group on a port, default 1024
	PortSources int         // sources of all public groups on a port, default 16384
	Private     int         // private groups, default steer.MaxGroups
	Requesters  int         // requesters of a private group, default 1024
	Owners      steer.Owner // owner numbers, default 4095
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.Groups, 4096)
	set(&l.Sources, 1024)
	set(&l.PortSources, 16384)
	set(&l.Private, steer.MaxGroups)
	set(&l.Requesters, 1024)
	if l.Owners == 0 {
		l.Owners = 4095
	}
	return l
}

// Membership is the Group Membership Interval (RFC 3376 section 8.4): how long a member stays without refreshing.
func (c Config) Membership() time.Duration {
	return time.Duration(c.Robustness)*c.QueryInterval + c.QueryResponseInterval
}

func (c Config) otherQuerierPresent() time.Duration {
	return time.Duration(c.Robustness)*c.QueryInterval + c.QueryResponseInterval/2
}

// Action is what the caller has to do: SendQuery, Relay, Changed, Refused or SendReport.
type Action interface{ action() }

// SendQuery asks on a port, to the group or, in a general query, to 224.0.0.1.
type SendQuery struct {
	Port  string
	Query igmp.Query
}

// Relay passes an accepted set on, its parts unchanged, toward the roots but not back to the port From.
type Relay struct {
	From  string
	Joins []join.Signed
}

// SendReport tells the routers toward the roots about public groups, as RFC 4605 has it.
type SendReport struct {
	Records []igmp.Record
}

// Changed says that the forwarding state is another one: Settle, then Public and Private have it.
type Changed struct{}

// Refused says that a set which Join took was taken back: it cannot be steered together with the others.
type Refused struct {
	Group, Requester netip.Addr
	Port             string
	Err              error // wraps ErrComplex
}

func (SendQuery) action()  {}
func (Relay) action()      {}
func (SendReport) action() {}
func (Changed) action()    {}
func (Refused) action()    {}

// Port is an interface that members join by.
type Port struct {
	Name    string
	Address netip.Addr // own address, which takes part in the querier election
	Members bool       // queries are sent and plain reports taken
	// Upstream ports lead to a root: what their members want is not told upstream, queries there are answered.
	Upstream bool
}

type port struct {
	Port
	querier querier
	groups  map[netip.Addr]*group
	sources int // of all groups
}

// Table is the whole state.
type Table struct {
	cfg       Config
	ports     map[string]*port
	private   map[netip.Addr]*privateGroup
	health    map[netip.Addr]Health       // of requesters; who is missing is available
	served    map[netip.Addr][]netip.Addr // the private groups of those who are not, from when they were
	owners    owners
	assembler *join.Assembler
	proxy     proxy
	actions   []Action
	next      time.Time // nothing is due before; zero: never
	dropped   uint64    // records beyond the limits
}

// New returns an empty Table.
func New(cfg Config) *Table {
	cfg.Limits = cfg.Limits.withDefaults()
	return &Table{
		cfg: cfg, ports: make(map[string]*port), private: make(map[netip.Addr]*privateGroup), health: make(map[netip.Addr]Health), served: make(map[netip.Addr][]netip.Addr),
		owners:    newOwners(cfg.Limits.Owners),
		assembler: join.NewAssembler(join.Limits{Wait: cfg.Membership()}),
		proxy:     newProxy(),
	}
}

func (t *Table) times() times {
	return times{membership: t.cfg.Membership(), lastMember: t.cfg.LastMemberQueryInterval, count: t.cfg.Robustness}
}

// act notes an action; a change is noted once.
func (t *Table) act(a Action) {
	if _, ok := a.(Changed); ok {
		for _, b := range t.actions {
			if b == a {
				return
			}
		}
	}
	t.actions = append(t.actions, a)
}

// take returns the actions of one event.
func (t *Table) take() []Action {
	all := t.actions
	t.actions = nil
	return all
}

// arm makes Tick look at the table at the given time.
func (t *Table) arm(at time.Time) { t.next = earliest(t.next, at) }

// Next is the time of the next Tick; zero: there is nothing to wait for.
func (t *Table) Next() time.Time { return t.next }

// Dropped counts records and joins that were ignored because a bound was reached.
func (t *Table) Dropped() uint64 { return t.dropped }

// SetPort adds a port or changes it. A new member port, and one that came up again, is asked at once.
func (t *Table) SetPort(now time.Time, p Port) []Action {
	known := t.ports[p.Name]
	if known == nil {
		known = &port{groups: make(map[netip.Addr]*group)}
		t.ports[p.Name] = known
	}
	if !known.Members && p.Members || known.Address != p.Address {
		known.querier = querier{own: p.Address, startup: t.cfg.Robustness, generalAt: now}
	}
	known.Port = p
	t.arm(now)
	return t.Tick(now)
}

// RemovePort forgets a port with its public groups. Private members on it stay until they expire: the port may come back.
func (t *Table) RemovePort(now time.Time, name string) []Action {
	if p := t.ports[name]; p != nil {
		delete(t.ports, name)
		for g := range p.groups {
			t.publicChanged(now, g)
		}
	}
	return t.take()
}

// Tick does what is due.
func (t *Table) Tick(now time.Time) []Action {
	if t.next.IsZero() || t.next.After(now) {
		return t.take()
	}
	t.next = time.Time{}
	for _, p := range t.ports {
		t.tickPort(now, p)
	}
	t.tickPrivate(now)
	t.tickProxy(now)
	return t.take()
}

func (t *Table) tickPort(now time.Time, p *port) {
	if p.Members {
		if p.querier.general(now, t.cfg.QueryInterval) {
			t.ask(p, igmp.Query{})
		}
		t.arm(p.querier.next())
	}
	for addr, g := range p.groups {
		for _, q := range g.dueQueries(now, t.times(), addr) {
			t.ask(p, q)
		}
		had := len(g.sources)
		changed, gone := g.expire(now)
		p.sources += len(g.sources) - had
		if gone {
			delete(p.groups, addr)
		}
		if changed || gone {
			t.publicChanged(now, addr)
		}
		t.arm(g.next())
	}
}

// ask completes a query and sends it.
func (t *Table) ask(p *port, q igmp.Query) {
	q.Version, q.QRV, q.QQI = 3, uint8(t.cfg.Robustness), t.cfg.QueryInterval
	q.MaxResp = t.cfg.QueryResponseInterval
	if !q.General() {
		q.MaxResp = t.cfg.LastMemberQueryInterval
	}
	t.act(SendQuery{p.Name, q})
}
