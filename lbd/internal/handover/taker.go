package handover

import (
	"slices"
	"time"

	"github.com/manycast/manycast/internal/epoch"
)

// Taker is the state of all transfers that come to this server. It belongs to one goroutine.
type Taker struct {
	name    string
	boot    uint64
	address string
	limits  Limits
	table   map[cell]takerRule

	now   time.Time
	out   []Action
	flows map[Flow]*taking
	byID  map[ID]*taking
	all   []*taking // in order of their offers
	ended ended
	links map[string]uint64 // givers with a link, and their boots

	batches  []*ask // what was asked for whole, and is not yet offered
	single   []*ask // flows asked for by themselves
	bySingle map[Flow]*ask
	again    uint64 // of what was asked for
}

// taking is a transfer.
type taking struct {
	Transfer
	service string
	epoch   epoch.Epoch
	step    Step
	since   time.Time
	began   time.Time
	until   time.Time
	state   State
	why     Why
}

// NewTaker returns a Taker of this server and boot, with nothing to take; address is where its links are taken, address:port.
func NewTaker(name string, boot uint64, address string, limits Limits) *Taker {
	limits = limits.withDefaults()
	return &Taker{
		name: name, boot: boot, address: address, limits: limits, table: takerTable(),
		flows: map[Flow]*taking{}, byID: map[ID]*taking{}, links: map[string]uint64{}, bySingle: map[Flow]*ask{},
		ended: ended{max: limits.Ended, fates: map[ID]Fate{}},
	}
}

// Offered takes an Offer. What is to be refused, and why, the caller says: Foreign where the user of the flow is not this server's by
// its allocation, Stale where the epoch is not the newest that it knows, Here where its kernel has the flow.
func (t *Taker) Offered(now time.Time, giver string, o Offer, refuse Why) []Action {
	t.now = now
	if refuse.Reason == None {
		refuse = t.refusal(giver, o)
	}
	if refuse.Reason != None {
		t.send(giver, Refused{o.ID, refuse})
		return t.settle()
	}
	if was := t.flows[o.Flow]; was != nil {
		was.why = Why{Busy, "offered anew"}
		t.step(was, onCancel)
	}
	n := &taking{Transfer: o.Transfer, service: o.Service, epoch: o.Epoch, step: Held, since: now, began: now, until: now.Add(t.limits.Wait)}
	t.flows[o.Flow], t.byID[o.ID] = n, n
	t.all = append(t.all, n)
	t.answered(giver, o)
	t.out = append(t.out, Hold{n.Transfer})
	t.send(giver, Ready{n.ID})
	return t.settle()
}

// refusal is what an offer is refused for. One that has no state yet gives way to a newer offer of its flow.
func (t *Taker) refusal(giver string, o Offer) Why {
	switch was := t.flows[o.Flow]; {
	case o.Giver != giver || !t.linked(giver) || o.Boot != t.links[giver]:
		return Why{Foreign, "it is not the giver's own transfer"}
	case t.byID[o.ID] != nil || t.ended.fates[o.ID] != 0:
		return Why{Stale, "it was offered before"}
	case was != nil && was.step != Held && was.step != Receiving:
		return Why{Busy, "the connection is coming by " + was.String()}
	case was != nil && o.Epoch.Less(was.epoch):
		return Why{Stale, "there is an offer of a newer epoch"}
	case was == nil && len(t.all) >= t.limits.Held:
		return Why{Full, ""}
	}
	return Why{}
}

// LinkUp says that a giver has opened a link, in place of one that there may have been.
func (t *Taker) LinkUp(now time.Time, giver string, boot uint64) []Action {
	t.now = now
	t.linkDown(giver)
	t.links[giver] = boot
	return t.settle()
}

// LinkDown says that it is lost. A state that has come whole is the connection: it goes on.
func (t *Taker) LinkDown(now time.Time, giver string) []Action {
	t.now = now
	t.linkDown(giver)
	return t.settle()
}

func (t *Taker) linkDown(giver string) {
	delete(t.links, giver)
	for _, n := range slices.Clone(t.all) {
		if n.Giver == giver {
			t.fail(n, onLinkDown, Why{LinkLost, ""})
		}
	}
}

// Received takes what a giver says on its link, but for an Offer.
func (t *Taker) Received(now time.Time, giver string, m Message) []Action {
	t.now = now
	switch m := m.(type) {
	case Coming:
		if n := t.of(giver, m.ID); n != nil {
			t.step(n, onComing)
		}
	case State:
		if n := t.of(giver, m.ID); n == nil {
			t.send(giver, Failed{m.ID, Why{Late, "it was given up"}})
		} else if n.step == Held || n.step == Receiving {
			n.state = m
			t.step(n, onState)
		}
	case Cancel:
		if n := t.of(giver, m.ID); n != nil {
			t.fail(n, onCancel, m.Why)
		}
	}
	return t.settle()
}

// of is a transfer that is the giver's.
func (t *Taker) of(giver string, id ID) *taking {
	if n := t.byID[id]; n != nil && n.Giver == giver {
		return n
	}
	return nil
}

// Restored is the result of Restore.
func (t *Taker) Restored(now time.Time, id ID, err error) []Action {
	return t.result(now, id, onRestored, onNotRestored, Kernel, err)
}

// Imported is the result of Import.
func (t *Taker) Imported(now time.Time, id ID, err error) []Action {
	return t.result(now, id, onImported, onNotImported, Application, err)
}

// Thawed is the result of GoLive. With an error the socket has not spoken.
func (t *Taker) Thawed(now time.Time, id ID, err error) []Action {
	return t.result(now, id, onThawed, onNotThawed, Kernel, err)
}

func (t *Taker) result(now time.Time, id ID, good, bad event, why Reason, err error) []Action {
	t.now = now
	switch n := t.byID[id]; {
	case n == nil:
	case err != nil:
		t.fail(n, bad, Why{why, err.Error()})
	default:
		t.step(n, good)
	}
	return t.settle()
}

// Asked takes a Query from the control channel. The state of a transfer went to the boot that was ready for it: another boot, and one
// that has forgotten, cannot tell. While a transfer is under way there is no answer yet.
func (t *Taker) Asked(now time.Time, from string, q Query) []Action {
	t.now = now
	if q.ID.Giver != from || q.Taker != t.name {
		return nil
	}
	n, fate := t.byID[q.ID], t.ended.fates[q.ID]
	switch {
	case q.Boot != t.boot:
		t.verdict(q.ID, Untold)
	case n != nil:
		t.fail(n, onQuery, Why{LinkLost, "the giver is in doubt"})
	case fate != 0:
		t.verdict(q.ID, fate)
	default:
		t.verdict(q.ID, Untold)
	}
	return t.settle()
}

// Tick does what is due.
func (t *Taker) Tick(now time.Time) []Action {
	t.now = now
	for _, n := range slices.Clone(t.all) {
		if over(n.until, now) {
			t.fail(n, onLate, Why{Late, "while " + string(n.step)})
		}
	}
	t.ended.forget(now)
	return t.settle()
}

// Next is when Tick has something to do; zero: never.
func (t *Taker) Next() time.Time {
	next := t.ended.next()
	for _, n := range t.all {
		next = earlier(next, n.until)
	}
	for _, asks := range [][]*ask{t.batches, t.single} {
		for _, a := range asks {
			next = earlier(next, earlier(a.again, a.deadline))
		}
	}
	return next
}

// Status lists the transfers under way, in order of their offers.
func (t *Taker) Status() []Status {
	var all []Status
	for _, n := range t.all {
		all = append(all, Status{n.Transfer, n.Giver, n.step, n.since})
	}
	return all
}

// fail is step with the reason why.
func (t *Taker) fail(n *taking, e event, why Why) {
	n.why = why
	t.step(n, e)
}

// step goes by the table.
func (t *Taker) step(n *taking, e event) {
	rule, ok := t.table[cell{n.step, e}]
	if !ok {
		return
	}
	if n.step != rule.next {
		n.step, n.since = rule.next, t.now
	}
	switch n.step { // the limits of steps; Receiving has one between parts
	case Receiving:
		n.until = t.now.Add(t.limits.Wait)
	case Restoring:
		n.until = t.now.Add(t.limits.Restore)
	case Importing:
		n.until = t.now.Add(t.limits.Import)
	default:
		n.until = time.Time{}
	}
	for _, do := range rule.do {
		do(t, n)
	}
	switch n.step {
	case live:
		t.end(n, Taken)
	case never:
		t.end(n, Never)
	}
}

// end takes a transfer out, and remembers what became of it.
func (t *Taker) end(n *taking, f Fate) {
	if t.flows[n.Flow] == n {
		delete(t.flows, n.Flow)
	}
	delete(t.byID, n.ID)
	t.all = slices.DeleteFunc(t.all, func(o *taking) bool { return o == n })
	t.ended.add(n.ID, f, t.now.Add(t.limits.Remember))
	if f == Taken {
		n.why = Why{}
	}
	t.out = append(t.out, Arrived{n.Transfer, f == Taken, n.why, t.now.Sub(n.began)})
}

// settle asks for what is due, and hands out all actions.
func (t *Taker) settle() []Action {
	t.batches = t.askDue(t.batches)
	t.single = t.askDue(t.single)
	out := t.out
	t.out = nil
	return out
}

// What the table has done. None of it steps.

func (t *Taker) restore(n *taking) {
	t.out = append(t.out, Restore{n.Transfer, n.state.Kernel})
	n.state.Kernel = nil
}

func (t *Taker) importInto(n *taking) {
	t.out = append(t.out, Import{n.Transfer, n.service, n.state.Application})
	n.state.Application = nil
}

func (t *Taker) goLive(n *taking)       { t.out = append(t.out, GoLive{n.Transfer}) }
func (t *Taker) discard(n *taking)      { t.out = append(t.out, Discard{n.Transfer}) }
func (t *Taker) open(n *taking)         { t.out = append(t.out, Open{n.Transfer}) }
func (t *Taker) took(n *taking)         { t.send(n.Giver, Took{n.ID}) }
func (t *Taker) failed(n *taking)       { t.send(n.Giver, Failed{n.ID, n.why}) }
func (t *Taker) verdictNever(n *taking) { t.verdict(n.ID, Never) }

func (t *Taker) verdict(id ID, f Fate) { t.out = append(t.out, Say{Verdict{id, f}}) }

// send drops what has no link: the giver asks.
func (t *Taker) send(to string, m Message) {
	if t.linked(to) {
		t.out = append(t.out, Send{to, m})
	}
}

func (t *Taker) linked(giver string) bool {
	_, ok := t.links[giver]
	return ok
}

// ended is what became of transfers, for a while.
type ended struct {
	max   int
	fates map[ID]Fate
	order []memory
}

type memory struct {
	id    ID
	until time.Time
}

func (e *ended) add(id ID, f Fate, until time.Time) {
	if len(e.order) >= e.max {
		delete(e.fates, e.order[0].id)
		e.order = e.order[1:]
	}
	e.fates[id] = f
	e.order = append(e.order, memory{id, until})
}

func (e *ended) forget(now time.Time) {
	for len(e.order) > 0 && over(e.order[0].until, now) {
		delete(e.fates, e.order[0].id)
		e.order = e.order[1:]
	}
}

func (e *ended) next() time.Time {
	if len(e.order) == 0 {
		return time.Time{}
	}
	return e.order[0].until
}
