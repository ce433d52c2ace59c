package stray

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/due"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/mover"
)

// Asker asks whose strays are. It is not for use by several goroutines at a time.
type Asker struct {
	name     string
	limits   Limits
	services services
	number   uint64 // of the last ask
	flows    map[dataplane.Flow]*flow
	led      int // flows with a holder
	timers   due.Queue[*flow]
	let      second[netip.Addr]
	out      outbox[Ask]
	actions  []Action
	counters AskerCounters
}

// AskerCounters are totals since the start.
type AskerCounters struct {
	Asked   uint64 // flows
	Found   uint64 // of these, those that a server has
	GivenUp uint64 // of these, those that nobody has
	Again   uint64 // entries that were asked for again
	Ended   uint64 // entries whose connection, or whose holder's voice, has ended
	Waiting uint64 // packets dropped: their flow was being asked for
	Nobody  uint64 // packets of flows known as nobody's, sent up
	Limited uint64 // packets dropped: too many in this second
	Full    uint64 // packets dropped: too many flows
	Foreign uint64 // packets dropped, of no service that keeps connections; answers of who is no server of the service
	Late    uint64 // answers to what is not asked any more
	Doubled uint64 // answers of a second holder of a flow
}

// flow is asked for, where asking, led to holder, where there is one, or else nobody's.
type flow struct {
	dataplane.Flow
	service string
	asking  bool
	number  uint64 // of its last ask
	began   time.Time
	said    int // words
	frame   []byte
	holder  string
	led     uint64 // number of the ask that holder has answered
	due.Place
}

// NewAsker returns an Asker of the server of that name.
func NewAsker(name string, limits Limits) *Asker {
	limits = limits.withDefaults()
	return &Asker{name: name, limits: limits, flows: map[dataplane.Flow]*flow{}, out: outbox[Ask]{pace: limits.Words}}
}

// Set makes views the services that this server executes.
func (a *Asker) Set(views []mover.View) []Action {
	a.services = newServices(views)
	for _, f := range a.flows {
		if a.services.at[f.VIP] != f.service {
			a.drop(f)
		}
	}
	return a.take()
}

// Stray asks whose a packet is.
func (a *Asker) Stray(now time.Time, s dataplane.Stray) []Action {
	service, known := a.services.at[s.Flow.VIP]
	f := a.flows[s.Flow]
	switch {
	case !known || s.Frame != nil && !isOf(s.Frame, s.Flow):
		a.counters.Foreign++
		return nil
	case f != nil && f.asking:
		a.counters.Waiting++
		return nil
	case f != nil && f.holder == "":
		a.counters.Nobody++
		a.inject(s)
		return a.settle(now)
	case f == nil && len(a.flows) >= a.limits.Flows:
		a.counters.Full++
		return nil
	case !a.let.take(now, userOf(s.Flow.User.Addr()), a.limits.Asks, a.limits.User):
		a.counters.Limited++
		return nil
	case f == nil:
		f = &flow{Flow: s.Flow, service: service}
		a.flows[s.Flow] = f
	}
	a.counters.Asked++
	f.frame = s.Frame
	a.ask(now, f) // one that is led has lost its entry
	return a.settle(now)
}

func (a *Asker) inject(s dataplane.Stray) {
	if s.Frame != nil {
		a.actions = append(a.actions, Inject(s))
	}
}

// ask begins to ask, by a number of its own.
func (a *Asker) ask(now time.Time, f *flow) {
	a.number++
	f.asking, f.number, f.began, f.said = true, a.number, now, 0
	a.say(f)
}

func (a *Asker) say(f *flow) {
	ask := Ask{Number: f.number, Service: f.service, Flow: f.Flow}
	if f.said == 0 {
		ask.Frame = f.frame
	}
	a.out.put(ask)
	at := a.limits.GiveUp
	if again := repeats(); f.said < len(again) {
		at = again[f.said]
	}
	f.said++
	a.timers.Set(f, f.began.Add(at))
}

// Answered takes what a server says of a flow.
func (a *Asker) Answered(now time.Time, from control.Member, h Holding) []Action {
	if h.Asker != a.name {
		return nil
	}
	f := a.flows[h.Flow]
	service, known := a.services.at[h.Flow.VIP]
	switch {
	case !known || !a.services.has(service, from):
		a.counters.Foreign++
	case h.Gone:
		a.gone(f, from.Name, h)
	case f == nil || h.Number != f.number:
		a.counters.Late++
	case f.asking:
		if f.holder == "" {
			a.counters.Found++
			a.led++
		}
		f.asking, f.frame, f.holder, f.led = false, nil, from.Name, h.Number
		a.timers.Set(f, now.Add(a.limits.Again))
		a.actions = append(a.actions, Lead{f.Flow, from.Address})
	case f.holder == "":
		a.counters.Late++
	case f.holder != from.Name:
		a.counters.Doubled++
	}
	return a.settle(now)
}

// gone ends an entry, also one of an earlier run, and an ask whose answer was overtaken by its end.
func (a *Asker) gone(f *flow, from string, h Holding) {
	switch {
	case f == nil:
		a.actions = append(a.actions, Drop{h.Flow})
	case f.holder == from && h.Number >= f.led, f.asking && f.holder == "" && h.Number == f.number:
		a.drop(f)
	default:
		a.counters.Late++
	}
}

// Heard takes how a member is. Who is silent holds nothing.
func (a *Asker) Heard(now time.Time, m control.Member) []Action {
	if m.Health == control.Silent {
		for _, f := range a.flows {
			if f.holder == m.Name {
				a.drop(f)
			}
		}
	}
	return a.settle(now)
}

// drop forgets a flow, and the entry that it has.
func (a *Asker) drop(f *flow) {
	a.timers.Remove(f)
	delete(a.flows, f.Flow)
	if f.holder != "" {
		a.led--
		a.counters.Ended++
		a.actions = append(a.actions, Drop{f.Flow})
	}
}

// Tick does what is due.
func (a *Asker) Tick(now time.Time) []Action {
	for f, ok := a.timers.First(now); ok; f, ok = a.timers.First(now) {
		switch {
		case f.asking && f.said <= len(repeats()):
			a.say(f)
		case f.asking:
			a.giveUp(now, f)
		case f.holder != "":
			a.counters.Again++
			a.ask(now, f)
		default:
			a.drop(f)
		}
	}
	return a.settle(now)
}

// giveUp sends the packet up the stack, which resets what it does not know. Where there was an entry nobody needs it any more.
func (a *Asker) giveUp(now time.Time, f *flow) {
	if f.holder != "" {
		a.drop(f)
		return
	}
	a.counters.GivenUp++
	a.inject(dataplane.Stray{Flow: f.Flow, Frame: f.frame})
	f.asking, f.frame = false, nil
	a.timers.Set(f, now.Add(a.limits.Nobody))
}

// Next is when Tick has something to do; zero: never.
func (a *Asker) Next() time.Time {
	return earlier(a.timers.Next(), a.out.due())
}

// Counters are the totals.
func (a *Asker) Counters() AskerCounters { return a.counters }

// Led is how many entries there are.
func (a *Asker) Led() int { return a.led }

// settle adds the word that is due.
func (a *Asker) settle(now time.Time) []Action {
	if word := a.out.take(now, func(k Ask) int { return len(k.Frame) }); word != nil {
		a.actions = append(a.actions, SayAsks{word})
	}
	return a.take()
}

func (a *Asker) take() []Action {
	out := a.actions
	a.actions = nil
	return out
}
