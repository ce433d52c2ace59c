package stray

import (
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/mover"
)

// Holder answers for the connections of this server. It is not for use by several goroutines at a time.
type Holder struct {
	limits   Limits
	services services
	held     map[dataplane.Flow]*holding
	order    []*holding // by when they are looked at next; those that have been replaced stay until then
	let      second[string]
	out      outbox[Holding]
	counters HolderCounters
}

// HolderCounters are totals since the start.
type HolderCounters struct {
	Heard   uint64 // strays of others
	Served  uint64 // packets of these that went up here
	Found   uint64 // answers given
	Ended   uint64 // connections that were answered for, and are over
	Foreign uint64 // of no service here, of who is no server of it, or with a packet of another flow
	Limited uint64 // too many in this second, of one server or of all
}

// holding is a flow that was answered for, and to whom last: others ask again.
type holding struct {
	flow   dataplane.Flow
	asker  string
	number uint64
	at     time.Time // of the next look
}

// NewHolder returns a Holder that has answered for nothing.
func NewHolder(limits Limits) *Holder {
	limits = limits.withDefaults()
	return &Holder{limits: limits, held: map[dataplane.Flow]*holding{}, out: outbox[Holding]{pace: limits.Answers}}
}

// Set makes views the services that this server executes.
func (h *Holder) Set(views []mover.View) { h.services = newServices(views) }

// Asked takes a stray of another server.
func (h *Holder) Asked(now time.Time, from control.Member, a Ask) []Action {
	h.counters.Heard++
	switch {
	case h.services.at[a.Flow.VIP] != a.Service, !h.services.has(a.Service, from), len(a.Frame) > 0 && !isOf(a.Frame, a.Flow):
		h.counters.Foreign++
		return nil
	case !h.let.take(now, from.Name, 8*h.limits.Heard, h.limits.Heard):
		h.counters.Limited++
		return nil
	}
	return []Action{Look{from.Name, a}}
}

// Looked tells whether the socket table has the flow. Its packet goes up once, the answer is given each time: one may have been lost.
func (h *Holder) Looked(now time.Time, l Look, known bool) []Action {
	if !known {
		return nil
	}
	var out []Action
	was := h.held[l.Ask.Flow]
	if again := was != nil && was.asker == l.Asker && was.number >= l.Ask.Number; !again {
		if len(l.Ask.Frame) > 0 {
			h.counters.Served++
			out = append(out, Inject{l.Ask.Flow, l.Ask.Frame})
		}
		h.hold(now, l)
	}
	h.counters.Found++
	h.out.put(Holding{Asker: l.Asker, Number: l.Ask.Number, Flow: l.Ask.Flow})
	return append(out, h.settle(now)...)
}

// hold looks after a flow from now on, in place of the one that waits longest where there are too many.
func (h *Holder) hold(now time.Time, l Look) {
	if was := h.held[l.Ask.Flow]; was != nil {
		was.asker, was.number = l.Asker, l.Ask.Number
		return
	}
	for len(h.held) >= h.limits.Held {
		first := h.order[0]
		h.order = h.order[1:]
		if h.held[first.flow] == first {
			delete(h.held, first.flow)
		}
	}
	n := &holding{l.Ask.Flow, l.Asker, l.Ask.Number, now.Add(h.limits.Look)}
	h.held[n.flow], h.order = n, append(h.order, n)
}

// Checked tells whether the socket table has the flow still.
func (h *Holder) Checked(now time.Time, f dataplane.Flow, known bool) []Action {
	if n := h.held[f]; n != nil && !known {
		h.counters.Ended++
		delete(h.held, f)
		h.out.put(Holding{Asker: n.asker, Number: n.number, Flow: f, Gone: true})
	}
	return h.settle(now)
}

// Tick looks at what is due.
func (h *Holder) Tick(now time.Time) []Action {
	var out []Action
	for len(h.order) > 0 && !h.order[0].at.After(now) {
		n := h.order[0]
		h.order = h.order[1:]
		if h.held[n.flow] == n {
			n.at = now.Add(h.limits.Look)
			h.order = append(h.order, n)
			out = append(out, Check{n.flow})
		}
	}
	return append(out, h.settle(now)...)
}

// Next is when Tick has something to do; zero: never.
func (h *Holder) Next() time.Time {
	if len(h.order) == 0 {
		return h.out.due()
	}
	return earlier(h.order[0].at, h.out.due())
}

// Counters are the totals.
func (h *Holder) Counters() HolderCounters { return h.counters }

// Held is how many flows are looked after.
func (h *Holder) Held() int { return len(h.held) }

func (h *Holder) settle(now time.Time) []Action {
	if word := h.out.take(now, func(Holding) int { return 0 }); word != nil {
		return []Action{SayHoldings{word}}
	}
	return nil
}
