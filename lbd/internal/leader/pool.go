package leader

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/damping"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/store"
)

// pool is one service: its servers, its allocation and the reallocation under way.
type pool struct {
	core     *Core
	name     string
	spec     *service.Service // nil: no such service
	members  map[string]*member
	operator map[string]Operator
	wishes   map[string]*policy.Wishes // of members, under policies that follow them
	deaths   map[string]*damping.Damper
	out      map[string]bool      // members that have been heard not to serve, for a moment perhaps, since the allocation was committed
	told     map[string]time.Time // who is dampened, as on record

	revision uint64 // of the state in the bucket; 0: there is none
	state    store.State
	number   uint64 // highest of an epoch seen: if the bucket forgets, epochs do not go back within a term

	rests    time.Time // until then users whose connections a commit closed find everything where it is
	settled  *basis    // what the committed allocation is right for
	balanced time.Time // when reports of load last could move users, or somebody else did
	empty    bool      // nobody may own anything; told once
	warned   []string  // of the last decision
	checked  checked
	round    *round
	tails    []*tail
}

// round is a reallocation before its commit.
type round struct {
	phase    phase
	next     alloc.Allocation
	move     alloc.Move
	reason   string
	agents   []string        // who takes part
	waiting  map[string]bool // not prepared yet
	began    time.Time
	again    time.Time // the announcement is repeated then, once; zero: it was
	deadline time.Time
	excused  bool // the leader was late when it was to look
}

// readAfter is how long a leader that was late takes to read what has come meanwhile.
const readAfter = 50 * time.Millisecond

// missed gives agents the time in which their leader did not listen, and once in a round the time to read, too.
func (r *round) missed(now time.Time, gap time.Duration) {
	if r.phase != preparing {
		return
	}
	r.deadline = r.deadline.Add(gap)
	if read := now.Add(readAfter); !r.excused && r.deadline.Before(read) {
		r.deadline, r.excused = read, true
	}
}

type phase int

const (
	savingPrepared phase = iota
	preparing
	savingCommitted
)

// tail is a reallocation after its commit, until all agents are done.
type tail struct {
	Move
	began    time.Time
	deadline time.Time
	waiting  map[string]bool
}

// step lets time pass and starts what is due.
func (p *pool) step(now time.Time) []Action {
	out := p.expireTails(now)
	p.admit(now)
	if !p.core.leading(now) {
		p.round, p.told = nil, nil
		return out
	}
	out = append(out, p.tellDampened(now)...)
	if p.round != nil {
		out = append(out, p.checkPrepared(now)...)
	}
	if p.round == nil {
		out = append(out, p.evaluate(now)...)
	}
	return out
}

// evaluate begins a reallocation when the committed allocation is not the one that is wanted.
func (p *pool) evaluate(now time.Time) []Action {
	if p.spec == nil || p.spec.Static() || !p.core.loaded || !p.complete(now) || now.Before(p.rests) || p.restarts(now, maps.Keys(p.members)) {
		return nil
	}
	base, due := basis{p.nextEpoch(), p.spec, p.servers(now)}, p.due(now)
	if !due && p.settled != nil && p.settled.same(base) && p.state.Prepared.Zero() {
		return nil
	}
	d := policy.Decide(policy.Input{
		Rules: p.spec.Rules(), Servers: base.servers, Loads: p.loads(), Wishes: p.asked(), Current: p.state.Committed, Due: due,
	})
	if due {
		p.balanced = now
		p.begin()
	}
	want := d.Want(p.spec.Rules())
	want.Epoch = base.epoch
	next, move, err := alloc.Next(p.state.Committed, want)
	switch {
	case errors.Is(err, alloc.ErrNoServer):
		return p.nobody()
	case err != nil:
		p.settled = &base
		return []Action{Warn{p.name, err.Error()}}
	}
	p.empty = false
	out := p.warn(next, append(d.Why, p.spec.Rules().Late(move)...))
	if next.Same(p.state.Committed) {
		p.settled = &base
		return append(out, p.takeBack()...)
	}
	p.settled = nil
	if p.spec.Handover.Keeps() {
		next.Trail = alloc.Follow(p.state.Committed, next, p.holders(now), p.stoodIn)
	}
	p.round = &round{next: next, move: move, reason: p.reason(now, next, d.Why), began: now, agents: p.agents(now, next)}
	return append(out, Save{p.name, p.revision, store.State{Committed: p.state.Committed, Prepared: next}})
}

// due reports whether reports of load may move users: not before the policy's interval has passed since they could last, since any other
// reallocation, whose effect they do not show before, or since the term began.
func (p *pool) due(now time.Time) bool {
	rules := p.spec.Rules()
	if !rules.FollowsReports() {
		return false
	}
	if p.balanced.IsZero() {
		p.balanced = now
	}
	return now.Sub(p.balanced) >= rules.Balance.Interval
}

// loads are the last ones reported.
func (p *pool) loads() map[string]alloc.Load {
	out := make(map[string]alloc.Load, len(p.members))
	for name := range p.members {
		if l, ok := p.load(name); ok {
			out[name] = l
		}
	}
	return out
}

// load is the last one reported: on the control channel, which is younger, else in the registration.
func (p *pool) load(server string) (alloc.Load, bool) {
	if h := p.core.hearing; h != nil {
		if l, ok := h.members[server].loads[p.name]; ok {
			return l, true
		}
	}
	m := p.members[server]
	if m == nil || m.Load == nil {
		return alloc.Load{}, false
	}
	return *m.Load, true
}

// hear takes what a member's new report asks for.
func (p *pool) hear(server string) {
	if p.spec == nil || p.spec.Policy != policy.Wanted || p.members[server] == nil {
		return
	}
	l, ok := p.load(server)
	if !ok {
		return
	}
	if p.wishes[server] == nil {
		p.wishes[server] = &policy.Wishes{}
	}
	p.wishes[server].Hear(l.Wanted)
}

func (p *pool) asked() map[string]policy.Wishes {
	out := make(map[string]policy.Wishes, len(p.wishes))
	for name, w := range p.wishes {
		out[name] = *w
	}
	return out
}

// begin starts the interval of wishes that follows a decision.
func (p *pool) begin() {
	for _, w := range p.wishes {
		w.Begin()
	}
}

// nobody keeps the last allocation: it is better than none.
func (p *pool) nobody() []Action {
	if p.empty || p.state.Committed.Zero() {
		return nil
	}
	p.empty = true
	return []Action{Warn{p.name, alloc.ErrNoServer.Error() + "; the last allocation stays"}}
}

// takeBack removes an allocation that an earlier leader prepared and did not commit, where it is not wanted any more: nobody
// has executed it.
func (p *pool) takeBack() []Action {
	if p.state.Prepared.Zero() {
		return nil
	}
	return []Action{Save{p.name, p.revision, store.State{Committed: p.state.Committed}}}
}

func (p *pool) nextEpoch() epoch.Epoch {
	return epoch.Epoch{Term: p.core.term, Number: p.number + 1}
}

// setState takes what the bucket holds.
func (p *pool) setState(revision uint64, s store.State) {
	if s.Committed.Epoch != p.state.Committed.Epoch {
		p.out = p.core.hearing.out()
	}
	p.revision, p.state = revision, s
	p.number = max(p.number, s.Committed.Epoch.Number, s.Prepared.Epoch.Number)
}

// agents are the servers that a move to next concerns and that can be expected to answer.
func (p *pool) agents(now time.Time, next alloc.Allocation) []string {
	var names []string
	for name, m := range p.members {
		concerned := slices.Contains(next.Servers, name) || slices.Contains(p.state.Committed.Servers, name)
		if concerned && p.alive(now, m) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// saved goes on when the bus has what the round wanted it to have.
func (p *pool) saved(now time.Time) []Action {
	r := p.round
	switch {
	case r == nil || !p.core.leading(now):
		p.round = nil
		return nil
	case r.phase == savingPrepared && p.state.Prepared.Epoch == r.next.Epoch:
		patience := p.core.timing.PrepareTimeout
		r.phase, r.waiting = preparing, setOf(r.agents)
		r.began, r.again, r.deadline = now, now.Add(patience/2), now.Add(patience)
		return []Action{Send{announce.Announce{Service: p.name, Allocation: r.next, Previous: p.state.Committed}}}
	case r.phase == savingCommitted && p.state.Committed.Epoch == r.next.Epoch:
		p.round, p.balanced, p.rests = nil, now, now.Add(p.core.timing.Rest)
		p.tails = append(p.tails, &tail{
			Move: Move{
				Service: p.name, Epoch: r.next.Epoch, Reason: r.reason,
				Moved: r.move.FractionMoved(), Needed: r.move.FractionNeeded(),
			},
			began: r.began, deadline: now.Add(p.core.timing.DoneTimeout), waiting: setOf(r.agents),
		})
		return []Action{Send{announce.Commit{Service: p.name, Allocation: r.next}}}
	}
	p.round = nil
	return nil
}

func (p *pool) prepared(now time.Time, m announce.Prepared) []Action {
	if r := p.round; r != nil && r.phase == preparing && m.Epoch == r.next.Epoch {
		delete(r.waiting, m.Server)
	}
	return nil
}

// checkPrepared commits when all are prepared. Who is not in time is treated as dead, and the round begins anew without it.
func (p *pool) checkPrepared(now time.Time) []Action {
	r := p.round
	if r.phase != preparing {
		return nil
	}
	if len(r.waiting) == 0 {
		r.phase = savingCommitted
		return []Action{Save{p.name, p.revision, store.State{Committed: r.next}}}
	}
	if now.Before(r.deadline) {
		if r.again.IsZero() || now.Before(r.again) {
			return nil
		}
		r.again = time.Time{}
		return []Action{Send{announce.Announce{Service: p.name, Allocation: r.next, Previous: p.state.Committed}}}
	}
	if p.restarts(now, maps.Keys(r.waiting)) {
		return nil
	}
	missing := slices.Sorted(maps.Keys(r.waiting))
	for _, name := range missing {
		if m := p.members[name]; m != nil {
			m.suspect, m.doubt, m.admitted = now.Add(p.core.timing.SuspectFor), "did not prepare", false
		}
	}
	p.round = nil
	return []Action{Warn{p.name, "not prepared in time, treated as dead: " + commas(missing)}}
}

// restarts reports whether one of them restarts who has users. It serves them meanwhile, and would go on with those whom it lost.
func (p *pool) restarts(now time.Time, servers iter.Seq[string]) bool {
	for name := range servers {
		if p.core.hearing.restarts(now, name) && slices.Contains(p.state.Committed.Used(), name) {
			return true
		}
	}
	return false
}

func (p *pool) done(now time.Time, m announce.Done) []Action {
	for i, t := range p.tails {
		if t.Epoch != m.Epoch || !t.waiting[m.Server] {
			continue
		}
		delete(t.waiting, m.Server)
		t.Closed += m.Closed
		t.Took = now.Sub(t.began)
		if len(t.waiting) > 0 {
			return nil
		}
		p.tails = slices.Delete(p.tails, i, i+1)
		return []Action{t.record(now)}
	}
	return nil
}

// expireTails records moves that some agents did not finish in time.
func (p *pool) expireTails(now time.Time) []Action {
	var out []Action
	p.tails = slices.DeleteFunc(p.tails, func(t *tail) bool {
		if now.Before(t.deadline) && len(t.waiting) > 0 {
			return false
		}
		out = append(out, t.record(now))
		return true
	})
	return out
}

func (t *tail) record(now time.Time) Action {
	t.Finished, t.Missing = now, slices.Sorted(maps.Keys(t.waiting))
	return Record{t.Move}
}

// basis is what a decision is made from beside reports.
type basis struct {
	epoch   epoch.Epoch
	spec    *service.Service
	servers []alloc.Server
}

// same compares what two bases lead to; any change of services makes new specs.
func (b basis) same(o basis) bool {
	return b.epoch == o.epoch && b.spec == o.spec && slices.Equal(b.servers, o.servers)
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

func commas(words []string) string { return strings.Join(words, ", ") }
