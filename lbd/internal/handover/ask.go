package handover

import (
	"slices"
	"time"

	"github.com/manycast/manycast/internal/epoch"
)

// ask is said again, later each time, until its givers offer something, or the deadline.
type ask struct {
	Ask
	deadline time.Time
	again    time.Time
	said     int
}

// Want asks givers for all that they hold of the users that are this server's since an epoch, until each has begun to offer or the
// deadline. A newer epoch of a service takes the place of an older one.
func (t *Taker) Want(now time.Time, service string, e epoch.Epoch, from []string, deadline time.Time) []Action {
	t.now = now
	for _, a := range t.batches {
		if a.Service == service && !a.Epoch.Less(e) {
			return t.settle()
		}
	}
	t.batches = slices.DeleteFunc(t.batches, func(a *ask) bool { return a.Service == service })
	if len(from) > 0 {
		a := &ask{Ask: Ask{Service: service, Epoch: e, From: slices.Clone(from), Address: t.address, Again: t.again}, deadline: deadline, again: now}
		t.batches = append(t.batches, a)
	}
	return t.settle()
}

// WantAgain is Want, also of what was tried before and stayed.
func (t *Taker) WantAgain(now time.Time, service string, e epoch.Epoch, from []string, deadline time.Time) []Action {
	t.batches = slices.DeleteFunc(t.batches, func(a *ask) bool { return a.Service == service && !e.Less(a.Epoch) })
	t.again++
	return t.Want(now, service, e, from, deadline)
}

// WantFlow asks for one connection, though it was tried before and stayed: of these givers, or where there are none of whoever has it. It is asked
// for once at a time, and not at all where too many are.
func (t *Taker) WantFlow(now time.Time, service string, e epoch.Epoch, f Flow, from []string, deadline time.Time) []Action {
	t.now = now
	if t.flows[f] == nil && t.bySingle[f] == nil && len(t.single) < t.limits.Asked {
		t.again++
		a := &ask{Ask: Ask{Service: service, Epoch: e, From: slices.Clone(from), Flow: &f, Address: t.address, Again: t.again}, deadline: deadline, again: now}
		t.single, t.bySingle[f] = append(t.single, a), a
	}
	return t.settle()
}

// answered says that a giver has offered something of what was asked for.
func (t *Taker) answered(giver string, o Offer) {
	for _, a := range t.batches {
		if a.Service == o.Service && a.Epoch == o.Epoch {
			if a.From = slices.DeleteFunc(a.From, func(name string) bool { return name == giver }); len(a.From) == 0 {
				a.deadline = t.now
			}
		}
	}
	if a := t.bySingle[o.Flow]; a != nil {
		a.deadline = t.now
	}
}

// askDue says what is due, and returns what is left.
func (t *Taker) askDue(all []*ask) []*ask {
	return slices.DeleteFunc(all, func(a *ask) bool {
		if over(a.deadline, t.now) {
			if a.Flow != nil {
				delete(t.bySingle, *a.Flow)
			}
			return true
		}
		if over(a.again, t.now) {
			a.said++
			a.again = t.now.Add(t.limits.pause(a.said))
			word := a.Ask
			word.From = slices.Clone(a.From)
			t.out = append(t.out, Say{word})
		}
		return false
	})
}
