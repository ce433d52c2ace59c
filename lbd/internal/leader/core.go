package leader

import (
	"maps"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/damping"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/store"
)

// Timing are the leader's patience. Zero fields take the defaults of NewCore.
type Timing struct {
	DeadAfter      time.Duration // a server not renewed that long is dead; 2.5 s
	PrepareTimeout time.Duration // an agent not prepared by then is treated as dead; 500 ms
	JoinWait       time.Duration // new servers wait that long for others that start together; 1 s
	DoneTimeout    time.Duration // a move is recorded without those not done by then; 3 s
	ReturnWait     time.Duration // a server that is heard to serve has that long to register again after the bus was away; 10 s
	Rest           time.Duration // no reallocation begins that soon after a commit; 250 ms
	SuspectFor     time.Duration // how long an agent that did not prepare is left out; 10 s
	Dampen         time.Duration // doubled for each death that is remembered: how long a server stays out that dies again; 5 s
}

// Core knows the services, servers and allocations, and while it leads it changes the allocations. Every director feeds one,
// so that the next leader knows what the last one knew.
type Core struct {
	timing   Timing
	term     uint64
	until    time.Time // of the lease
	watching time.Time // since when registrations are seen
	loaded   bool      // the bucket of allocations is known
	pools    map[string]*pool
	hearing  *hearing // nil: there is no control channel
}

// NewCore returns a Core that knows nothing and does not lead.
func NewCore(t Timing) *Core {
	fill := func(field *time.Duration, d time.Duration) {
		if *field <= 0 {
			*field = d
		}
	}
	fill(&t.DeadAfter, 2500*time.Millisecond)
	fill(&t.PrepareTimeout, 500*time.Millisecond)
	fill(&t.JoinWait, time.Second)
	fill(&t.DoneTimeout, 3*time.Second)
	fill(&t.ReturnWait, 10*time.Second)
	fill(&t.Rest, 250*time.Millisecond)
	fill(&t.SuspectFor, 10*time.Second)
	fill(&t.Dampen, 5*time.Second)
	return &Core{timing: t, pools: map[string]*pool{}}
}

func (c *Core) pool(name string) *pool {
	p := c.pools[name]
	if p == nil {
		p = &pool{
			core: c, name: name, members: map[string]*member{}, operator: map[string]Operator{}, wishes: map[string]*policy.Wishes{},
			deaths: map[string]*damping.Damper{}, out: map[string]bool{},
		}
		c.pools[name] = p
	}
	return p
}

// leading reports whether the lease holds.
func (c *Core) leading(now time.Time) bool { return c.term != 0 && now.Before(c.until) }

// Lead tells that the lease holds with that term until then, if not renewed; term 0: it does not.
func (c *Core) Lead(now time.Time, term uint64, until time.Time) []Action {
	if term != c.term {
		for _, p := range c.pools {
			p.round, p.balanced = nil, now
			p.begin()
		}
	}
	c.term, c.until = term, until
	return c.Tick(now)
}

// Watching tells that registrations are seen from now on, at the start and after each time that the bus was away: nobody is
// dead for having been silent before.
func (c *Core) Watching(now time.Time) { c.watching = now }

// Missed tells that nothing was heard for that long, because nobody listened: renewals and answers wait to be heard, and who is heard last
// of them is not dead.
func (c *Core) Missed(now time.Time, gap time.Duration) {
	for _, p := range c.pools {
		for _, m := range p.members {
			m.seen = m.seen.Add(gap)
		}
		if p.round != nil {
			p.round.missed(now, gap)
		}
		for _, t := range p.tails {
			t.deadline = t.deadline.Add(gap)
		}
	}
}

// SetServices makes services all that there are.
func (c *Core) SetServices(now time.Time, services []service.Service) []Action {
	for _, p := range c.pools {
		p.spec = nil
	}
	for _, s := range services {
		c.pool(s.Name).spec = &s
	}
	for _, p := range c.pools {
		if p.spec == nil {
			p.round = nil
		}
		if p.spec == nil || p.spec.Policy != policy.Wanted {
			clear(p.wishes)
		}
	}
	return c.Tick(now)
}

// Register takes a registration of that revision.
func (c *Core) Register(now time.Time, r Registration, revision uint64) []Action {
	p := c.pool(r.Service)
	isNews := p.register(now, r, revision)
	p.hear(r.Server)
	if !isNews {
		return nil // thousands a second, where there are as many servers
	}
	return p.step(now)
}

// Unregister tells that a server has taken its registration back.
func (c *Core) Unregister(now time.Time, service, server string) []Action {
	p := c.pool(service)
	delete(p.members, server)
	delete(p.wishes, server)
	return p.step(now)
}

// SetOperator tells what the operator wants of a server.
func (c *Core) SetOperator(now time.Time, service, server string, o Operator) []Action {
	p := c.pool(service)
	p.operator[server] = o
	return p.step(now)
}

// Stored tells what a watch of the bucket saw; old revisions are ignored.
func (c *Core) Stored(now time.Time, service string, revision uint64, s store.State) []Action {
	if revision <= c.pool(service).revision {
		return nil
	}
	return c.Loaded(now, service, revision, s)
}

// AllStored tells that Stored was called for all that the bucket holds: a service without a state has none.
func (c *Core) AllStored(now time.Time) []Action {
	c.loaded = true
	return c.Tick(now)
}

// Loaded tells what the bucket holds now, whatever was known before: after a Save that failed, and at the begin of a term.
func (c *Core) Loaded(now time.Time, service string, revision uint64, s store.State) []Action {
	p := c.pool(service)
	p.setState(revision, s)
	p.round, p.settled = nil, nil
	return p.step(now)
}

// Saved answers a Save that succeeded.
func (c *Core) Saved(now time.Time, s Save, revision uint64) []Action {
	p := c.pool(s.Service)
	p.setState(revision, s.State)
	return append(p.saved(now), p.step(now)...)
}

// Message takes what an agent says; the leader's own messages are ignored.
func (c *Core) Message(now time.Time, m announce.Message) []Action {
	switch m := m.(type) {
	case announce.Prepared:
		if p, ok := c.pools[m.Service]; ok {
			return append(p.prepared(now, m), p.step(now)...)
		}
	case announce.Done:
		if p, ok := c.pools[m.Service]; ok {
			return append(p.done(now, m), p.step(now)...)
		}
	}
	return nil
}

// Tick lets time pass.
func (c *Core) Tick(now time.Time) []Action {
	var out []Action
	for _, name := range slices.Sorted(maps.Keys(c.pools)) {
		out = append(out, c.pools[name].step(now)...)
	}
	return out
}
