package handover

import (
	"fmt"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/epoch"
)

// Giver is the state of all transfers that leave this server. It belongs to one goroutine.
type Giver struct {
	name   string
	boot   uint64
	limits Limits
	table  map[cell]giverRule

	now     time.Time
	out     []Action
	number  uint64
	states  int // bytes of states sent and not yet answered
	flows   map[Flow]*giving
	moving  []*giving // begun, in order of their numbers
	batches []*batch  // in order of their first Ask
	peers   map[string]*peer
	newest  map[string]epoch.Epoch // by service, of the asks
}

// giving is a transfer. Wanted ones have no number.
type giving struct {
	Transfer
	batch       *batch
	step        Step
	since       time.Time // of the step
	began       time.Time // offered
	boot        uint64    // of the taker
	until       time.Time // the step's limit
	asked       int       // queries
	giveUp      time.Time // Doubting
	application []byte
	kernel      []byte
	bytes       int // of the state sent
	why         Why
}

// peer is a taker as its giver knows it.
type peer struct {
	address string
	boot    uint64
	up      bool
	dialing bool
	tries   int
	redial  time.Time
}

// NewGiver returns a Giver of this server and boot, with nothing to give.
func NewGiver(name string, boot uint64, limits Limits) *Giver {
	return &Giver{
		name: name, boot: boot, limits: limits.withDefaults(), table: giverTable(),
		flows: map[Flow]*giving{}, peers: map[string]*peer{}, newest: map[string]epoch.Epoch{},
	}
}

// Asked is an Ask on the control channel that names this server, and what the caller found for it.
type Asked struct {
	Taker string // who says it, by the channel
	Ask   Ask
	// Flows are the connections here that are the taker's by the caller's knowledge of the service's allocation; none where Taker or
	// Epoch are wrong. Of an Ask for one flow: that one.
	Flows    []Flow
	Deadline time.Time // what has not been sent then stays
}

// Asked takes up what a taker wants. Connections that a batch has tried are tried again when it asks again; one asked for by itself is the next. An Ask
// that is older than the service's newest is refused with an error.
func (g *Giver) Asked(now time.Time, a Asked) ([]Action, error) {
	g.now = now
	if a.Ask.Epoch.Less(g.newest[a.Ask.Service]) {
		return nil, fmt.Errorf("%s asks for %s of epoch %v, others for %v", a.Taker, a.Ask.Service, a.Ask.Epoch, g.newest[a.Ask.Service])
	}
	if len(a.Flows) == 0 {
		return nil, nil
	}
	g.newest[a.Ask.Service] = a.Ask.Epoch
	b := g.batch(BatchID{a.Taker, a.Ask.Service, a.Ask.Epoch}, a.Ask.Again, a.Deadline)
	for _, f := range a.Flows {
		g.want(b, f, a.Ask.Flow != nil)
	}
	g.peer(a.Taker).address = a.Ask.Address
	return g.settle(), nil
}

// want queues a flow. Who asks by a newer epoch gets what has not begun for others.
func (g *Giver) want(b *batch, f Flow, front bool) {
	if t := g.flows[f]; t != nil && t.batch != b {
		if t.step != Wanted && t.step != Offered {
			return // it is too late: whoever gets it is asked next
		}
		g.stop(t, Why{Cancelled, "a newer epoch gives it to " + b.Taker})
	}
	if t := g.flows[f]; t != nil {
		if front && t.step == Wanted {
			b.front(t)
		}
		return
	}
	if b.over || b.tried[f] {
		return
	}
	t := &giving{Transfer: Transfer{ID{g.name, g.boot, 0}, f}, batch: b, step: Wanted, since: g.now}
	b.tried[f] = true
	g.flows[f] = t
	b.Wanted++
	if front {
		b.front(t)
	} else {
		b.queue = append(b.queue, t)
	}
}

// LinkUp says that there is a link to a taker, in place of one that there may have been.
func (g *Giver) LinkUp(now time.Time, taker string, boot uint64) []Action {
	g.now = now
	if g.peer(taker).up {
		g.linkDown(taker)
	}
	g.started(taker, boot)
	*g.peer(taker) = peer{address: g.peer(taker).address, boot: boot, up: true}
	return g.settle()
}

// LinkDown says that there is none any more, or that it could not be opened.
func (g *Giver) LinkDown(now time.Time, taker string) []Action {
	g.now = now
	g.linkDown(taker)
	return g.settle()
}

func (g *Giver) linkDown(taker string) {
	p := g.peer(taker)
	p.up, p.dialing = false, false
	p.tries++
	p.redial = g.now.Add(g.limits.pause(p.tries))
	g.each(taker, func(t *giving) { g.fail(t, onLinkDown, Why{LinkLost, ""}) })
}

// Silent says that a taker is silent on the control channel: what it was sent is lost with it.
func (g *Giver) Silent(now time.Time, taker string) []Action {
	g.now = now
	why := Why{Gone, "it is silent"}
	for _, b := range g.batches {
		if b.Taker == taker {
			g.stopWanted(b, why)
		}
	}
	g.each(taker, func(t *giving) { g.fail(t, onGone, why) })
	return g.settle()
}

// Started says which boot a taker has, by the control channel. What another one was sent is lost with that, and what it asked for is
// asked for anew.
func (g *Giver) Started(now time.Time, taker string, boot uint64) []Action {
	g.now = now
	g.started(taker, boot)
	return g.settle()
}

func (g *Giver) started(taker string, boot uint64) {
	p := g.peer(taker)
	was := p.boot
	if p.boot = boot; was == 0 || was == boot {
		return
	}
	why := Why{Gone, "it was started anew"}
	for _, b := range g.batches {
		if b.Taker == taker {
			g.stopWanted(b, why)
			b.forget = g.now
		}
	}
	g.each(taker, func(t *giving) {
		if t.boot != boot {
			g.fail(t, onGone, why)
		}
	})
}

// Received takes what a taker says on its link.
func (g *Giver) Received(now time.Time, taker string, m Message) []Action {
	g.now = now
	switch m := m.(type) {
	case Ready:
		g.heard(taker, m.ID, onReady, Why{})
	case Took:
		g.heard(taker, m.ID, onTook, Why{})
	case Refused:
		g.heard(taker, m.ID, onRefused, m.Why)
	case Failed:
		g.heard(taker, m.ID, onFailed, m.Why)
	}
	return g.settle()
}

// Verdict takes what a member says of a transfer on the control channel.
func (g *Giver) Verdict(now time.Time, from string, v Verdict) []Action {
	g.now = now
	if t := g.find(v.ID); t == nil || t.step != Doubting {
		return nil
	}
	switch v.Fate {
	case Taken:
		g.heard(from, v.ID, onTook, Why{})
	case Never:
		g.heard(from, v.ID, onFailed, Why{LinkLost, "the taker has not taken it"})
	case Untold:
		g.heard(from, v.ID, onUntold, Why{Gone, "the taker cannot tell"})
	}
	return g.settle()
}

// heard is something of the transfer's taker. Of others it is nothing.
func (g *Giver) heard(from string, id ID, e event, why Why) {
	if t := g.find(id); t != nil && t.batch.Taker == from {
		g.fail(t, e, why)
	}
}

// Exported is the result of Export: the application's words for the connection, or an error.
func (g *Giver) Exported(now time.Time, id ID, application []byte, err error) []Action {
	g.now = now
	switch t := g.find(id); {
	case t == nil:
	case err != nil:
		g.fail(t, onNotExported, Why{Application, err.Error()})
	default:
		t.application = application
		g.step(t, onExported)
	}
	return g.settle()
}

// Frozen is the result of Freeze: the kernel's state, or an error; then the socket is as it was.
func (g *Giver) Frozen(now time.Time, id ID, kernel []byte, err error) []Action {
	g.now = now
	switch t := g.find(id); {
	case t == nil:
	case err != nil:
		g.fail(t, onNotFrozen, Why{Kernel, err.Error()})
	default:
		t.kernel = kernel
		g.step(t, onFrozen)
	}
	return g.settle()
}

// Returned says that somebody offers a flow to us. Whoever offers a connection has it: one that we sent by an older epoch, and were not
// answered for, was taken. An offer of the same epoch or an older one was made before, when the other had it, and came late. The caller
// says this before Taker.Offered.
func (g *Giver) Returned(now time.Time, o Offer) []Action {
	g.now = now
	if t := g.flows[o.Flow]; t != nil && t.batch.Service == o.Service && t.batch.Epoch.Less(o.Epoch) {
		g.step(t, onTook)
	}
	return g.settle()
}

// Cancel stops the batches of a service: what has not been sent stays.
func (g *Giver) Cancel(now time.Time, service string) []Action {
	g.now = now
	for _, b := range g.batches {
		if b.Service == service {
			g.stopBatch(b, Why{Cancelled, "by the operator"})
		}
	}
	return g.settle()
}

// Tick does what is due.
func (g *Giver) Tick(now time.Time) []Action {
	g.now = now
	for _, b := range g.batches {
		if !b.over && over(b.deadline, now) {
			g.stopBatch(b, Why{Deadline, ""})
		}
	}
	for _, t := range slices.Clone(g.moving) {
		switch {
		case t.step == Doubting && over(t.giveUp, now):
			g.fail(t, onGivenUp, Why{Doubt, fmt.Sprintf("%d queries without an answer", t.asked)})
		case over(t.until, now):
			g.fail(t, onLate, Why{Late, "while " + string(t.step)})
		}
	}
	return g.settle()
}

// Next is when Tick has something to do; zero: never.
func (g *Giver) Next() time.Time {
	var next time.Time
	for _, b := range g.batches {
		if b.over && b.reported {
			next = earlier(next, b.forget)
		}
		if b.over {
			continue
		}
		next = earlier(next, b.deadline)
		if p := g.peers[b.Taker]; b.Wanted > 0 && !p.up && !p.dialing {
			next = earlier(next, p.redial)
		}
	}
	for _, t := range g.moving {
		next = earlier(next, t.until)
		next = earlier(next, t.giveUp)
	}
	return next
}

// Status lists the transfers under way, in order of their numbers, and then what is wanted.
func (g *Giver) Status() []Status {
	var all []Status
	for _, t := range g.moving {
		all = append(all, Status{t.Transfer, t.batch.Taker, t.step, t.since})
	}
	for _, b := range g.batches {
		for _, t := range b.queue {
			if t.step == Wanted {
				all = append(all, Status{t.Transfer, b.Taker, t.step, t.since})
			}
		}
	}
	return all
}

// Batches lists the batches that are remembered, in order of their beginning.
func (g *Giver) Batches() []Progress {
	all := make([]Progress, 0, len(g.batches))
	for _, b := range g.batches {
		all = append(all, b.Progress)
	}
	return all
}

func (g *Giver) find(id ID) *giving {
	i, ok := slices.BinarySearchFunc(g.moving, id.Number, func(t *giving, n uint64) int {
		switch {
		case t.Number < n:
			return -1
		case t.Number > n:
			return 1
		}
		return 0
	})
	if !ok || g.moving[i].ID != id {
		return nil
	}
	return g.moving[i]
}

func (g *Giver) peer(name string) *peer {
	p := g.peers[name]
	if p == nil {
		p = &peer{}
		g.peers[name] = p
	}
	return p
}

// each calls do for the transfers that have begun to a taker.
func (g *Giver) each(taker string, do func(*giving)) {
	for _, t := range slices.Clone(g.moving) {
		if t.batch.Taker == taker {
			do(t)
		}
	}
}

// fail is step with the reason why.
func (g *Giver) fail(t *giving, e event, why Why) {
	t.why = why
	g.step(t, e)
}

func (g *Giver) stop(t *giving, why Why) { g.fail(t, onStop, why) }

// step goes by the table.
func (g *Giver) step(t *giving, e event) {
	rule, ok := g.table[cell{t.step, e}]
	if !ok {
		return
	}
	was := t.step
	if t.step = rule.next; was != t.step {
		g.enter(t, was)
	}
	for _, do := range rule.do {
		do(g, t)
	}
	switch t.step {
	case given:
		g.end(t, was, Given)
	case stayed:
		g.end(t, was, Stayed)
	case lost:
		g.end(t, was, Lost)
	}
}

// enter sets the limits of a step.
func (g *Giver) enter(t *giving, was Step) {
	t.since = g.now
	switch t.step {
	case Exporting:
		t.until = g.now.Add(g.limits.Give)
	case Freezing: // within what Exporting has left
	case Sent:
		t.until = g.now.Add(g.limits.Answer)
	case Doubting:
		t.giveUp = g.now.Add(g.limits.Doubt)
	default:
		t.until = time.Time{}
	}
}

// end takes a transfer out.
func (g *Giver) end(t *giving, was Step, o Outcome) {
	delete(g.flows, t.Flow)
	b, took := t.batch, time.Duration(0)
	if was == Wanted {
		b.Wanted--
	} else {
		b.Moving--
		g.moving = slices.DeleteFunc(g.moving, func(o *giving) bool { return o == t })
		g.states -= t.bytes
		took = g.now.Sub(t.began)
	}
	switch o {
	case Given:
		b.Given++
		t.why = Why{}
	case Stayed:
		b.Stayed++
	case Lost:
		b.Lost++
	}
	g.out = append(g.out, Report{t.Transfer, b.BatchID, o, t.why, t.bytes, took})
}

// What the table has done. None of it steps.

func (g *Giver) offer(t *giving) {
	g.number++
	t.Number, t.boot, t.began = g.number, g.peers[t.batch.Taker].boot, g.now
	g.moving = append(g.moving, t)
	t.batch.Wanted--
	t.batch.Moving++
	g.send(t, Offer{t.Transfer, t.batch.Service, t.batch.Epoch})
}

// requeue has an offer made again by the next link, by another number: the first in its queue.
func (g *Giver) requeue(t *giving) {
	g.moving = slices.DeleteFunc(g.moving, func(o *giving) bool { return o == t })
	t.Number, t.why = 0, Why{}
	t.batch.Wanted++
	t.batch.Moving--
	t.batch.front(t)
}

func (g *Giver) sendState(t *giving) {
	t.bytes = len(t.kernel) + len(t.application)
	t.batch.Bytes += uint64(t.bytes)
	g.states += t.bytes
	g.send(t, State{t.ID, t.kernel, t.application})
	t.kernel, t.application = nil, nil
}

func (g *Giver) query(t *giving) {
	t.asked++
	t.until = g.now.Add(g.limits.pause(t.asked))
	g.out = append(g.out, Say{Query{t.ID, t.batch.Taker, t.boot}})
}

func (g *Giver) export(t *giving)   { g.out = append(g.out, Export{t.Transfer}) }
func (g *Giver) giveBack(t *giving) { g.out = append(g.out, GiveBack{t.Transfer}) }
func (g *Giver) pass(t *giving)     { g.out = append(g.out, Pass{t.Transfer, t.batch.Taker}) }
func (g *Giver) unpass(t *giving)   { g.out = append(g.out, Unpass{t.Transfer}) }
func (g *Giver) freeze(t *giving)   { g.out = append(g.out, Freeze{t.Transfer}) }
func (g *Giver) thaw(t *giving)     { g.out = append(g.out, Thaw{t.Transfer}) }
func (g *Giver) close(t *giving)    { g.out = append(g.out, Close{t.Transfer}) }
func (g *Giver) cancel(t *giving)   { g.send(t, Cancel{t.ID, t.why}) }

func (g *Giver) send(t *giving, m Message) { g.out = append(g.out, Send{t.batch.Taker, m}) }
