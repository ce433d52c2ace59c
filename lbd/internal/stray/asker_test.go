package stray

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// text is what actions are, in short.
func text(actions []Action) string {
	var out []string
	for _, a := range actions {
		switch a := a.(type) {
		case SayAsks:
			for _, k := range a.Asks {
				out = append(out, fmt.Sprintf("ask %d frame %t", k.Number, k.Frame != nil))
			}
		case SayHoldings:
			for _, k := range a.Holdings {
				out = append(out, fmt.Sprintf("%s %d gone %t", k.Asker, k.Number, k.Gone))
			}
		case Look:
			out = append(out, "look")
		case Check:
			out = append(out, "check")
		case Inject:
			out = append(out, "inject")
		case Lead:
			out = append(out, "lead "+a.To.String())
		case Drop:
			out = append(out, "drop")
		}
	}
	return strings.Join(out, ", ")
}

func want(t *testing.T, what string, actions []Action, want string) {
	t.Helper()
	if got := text(actions); got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func newAsker(limits Limits) *Asker {
	a := NewAsker("s1", limits)
	a.Set(views(3))
	return a
}

// until has an Asker do all that is due until a time.
func until(a *Asker, end time.Time) (out []Action) {
	for next := a.Next(); !next.IsZero() && !next.After(end); next = a.Next() {
		out = append(out, a.Tick(next)...)
	}
	return out
}

func ms(n int) time.Time { return start.Add(time.Duration(n) * time.Millisecond) }

func holds(number uint64) Holding { return Holding{Asker: "s1", Number: number, Flow: flowOf(1)} }

func gone(number uint64) Holding {
	h := holds(number)
	h.Gone = true
	return h
}

func TestStrayIsLedToItsHolder(t *testing.T) {
	a := newAsker(Limits{})
	want(t, "stray", a.Stray(start, strayOf(1)), "ask 1 frame true")
	want(t, "the same flow", a.Stray(ms(1), strayOf(1)), "")
	want(t, "until 30 ms", until(a, ms(30)), "ask 1 frame false")
	want(t, "answer", a.Answered(ms(31), member(1), holds(1)), "lead 10.3.0.2")
	want(t, "again", a.Answered(ms(31), member(1), holds(1)), "")
	want(t, "another holder", a.Answered(ms(32), member(2), holds(1)), "")
	want(t, "for another asker", a.Answered(ms(32), member(2), Holding{Asker: "s2", Number: 1, Flow: flowOf(1), Gone: true}), "")
	want(t, "its end", a.Answered(ms(40), member(1), gone(1)), "drop")
	want(t, "what is late", a.Answered(ms(41), member(1), holds(1)), "")
	c := a.Counters()
	if c.Asked != 1 || c.Found != 1 || c.Waiting != 1 || c.Doubled != 1 || c.Ended != 1 || c.Late != 1 || a.Led() != 0 || !a.Next().IsZero() {
		t.Errorf("%+v, %d led, next %v", c, a.Led(), a.Next())
	}
}

func TestStrayOfNobodyIsGivenUp(t *testing.T) {
	a := newAsker(Limits{})
	a.Stray(start, strayOf(1))
	want(t, "without an answer", until(a, ms(300)), "ask 1 frame false, ask 1 frame false, inject")
	want(t, "the next packet", a.Stray(ms(400), strayOf(1)), "inject")
	want(t, "late answer", a.Answered(ms(401), member(1), holds(1)), "")
	until(a, ms(5300))
	want(t, "after a while", a.Stray(ms(5300), strayOf(1)), "ask 2 frame true")
	long := dataplane.Stray{Flow: flowOf(2)}
	want(t, "a packet that is too long to tell", a.Stray(ms(5400), long), "ask 3 frame false")
	if got := text(until(a, ms(5700))); strings.Count(got, "inject") != 1 {
		t.Errorf("%q, want the short one alone to go up", got)
	}
}

// TestEntryIsAskedForAgain: it goes on where the holder answers, goes over to who has it now, and ends where nobody has.
func TestEntryIsAskedForAgain(t *testing.T) {
	a := newAsker(Limits{})
	a.Stray(start, strayOf(1))
	a.Answered(ms(5), member(1), holds(1))
	want(t, "after 30 s", until(a, ms(30010)), "ask 2 frame false")
	want(t, "answer to the first ask", a.Answered(ms(30011), member(1), holds(1)), "")
	want(t, "answer", a.Answered(ms(30012), member(2), holds(2)), "lead 10.3.0.3")
	want(t, "the former holder's end", a.Answered(ms(30013), member(1), gone(1)), "")
	want(t, "an end before the answer", a.Answered(ms(30014), member(2), gone(1)), "")
	want(t, "nobody", until(a, ms(60300)), "ask 3 frame false, ask 3 frame false, ask 3 frame false, drop")
	want(t, "the end that is known already", a.Answered(ms(60400), member(2), gone(3)), "drop") // an earlier run's entry may be there
}

func TestEndThatOvertakesItsAnswer(t *testing.T) {
	a := newAsker(Limits{})
	a.Stray(start, strayOf(1))
	want(t, "gone", a.Answered(ms(5), member(1), gone(1)), "")
	want(t, "holding", a.Answered(ms(6), member(1), holds(1)), "")
	if a.Led() != 0 {
		t.Error("led to who has it no more")
	}
}

func TestEntriesEndWithTheirHolder(t *testing.T) {
	a := newAsker(Limits{})
	a.Stray(start, strayOf(1))
	a.Answered(ms(5), member(1), holds(1))
	silent := member(2)
	silent.Health = control.Silent
	want(t, "another one is silent", a.Heard(ms(6), silent), "")
	silent.Name = "s2"
	want(t, "the holder is silent", a.Heard(ms(7), silent), "drop")
	a.Stray(ms(100), strayOf(1))
	a.Answered(ms(105), member(1), holds(2))
	want(t, "the service is gone", a.Set(nil), "drop")
}

func TestWhoMayAnswer(t *testing.T) {
	router, silent, stranger := member(1), member(1), member(7)
	router.Role, silent.Health = control.Router, control.Silent
	for name, m := range map[string]control.Member{"router": router, "silent": silent, "server of others": stranger} {
		a := newAsker(Limits{})
		a.Stray(start, strayOf(1))
		want(t, name, a.Answered(ms(1), m, holds(1)), "")
		if a.Counters().Foreign != 1 {
			t.Errorf("%s is not counted", name)
		}
	}
	a := newAsker(Limits{})
	a.Stray(start, strayOf(1))
	want(t, "a server with work of the service", a.Answered(ms(1), work(), holds(1)), "lead 10.3.0.9")
}

func TestWhatIsAskedIsBounded(t *testing.T) {
	a := newAsker(Limits{Flows: 300})
	one := strayOf(1)
	for port := range uint16(100) {
		one.Flow.User = netip.AddrPortFrom(one.Flow.User.Addr(), 1000+port)
		one.Frame = frameOf(one.Flow, ack)
		a.Stray(start, one)
	}
	if c := a.Counters(); c.Asked != 20 || c.Limited != 80 {
		t.Errorf("of one user %+v", c)
	}
	for i := range 500 {
		a.Stray(ms(1), strayOf(1000+i))
	}
	if c := a.Counters(); c.Asked != 200 {
		t.Errorf("of all %+v", c)
	}
	a = newAsker(Limits{Flows: 300, Nobody: time.Hour})
	for i := range 1000 {
		until(a, ms(10*i))
		a.Stray(ms(10*i), strayOf(i))
	}
	if c := a.Counters(); len(a.flows) != 300 || c.Full != 700 {
		t.Errorf("%d flows, %+v", len(a.flows), c)
	}
}

// TestWordsAreBounded: of many strays at once a word has no more than it may, and they follow each other at their pace.
func TestWordsAreBounded(t *testing.T) {
	a := newAsker(Limits{})
	last, words := time.Time{}, 0
	check := func(now time.Time, actions []Action) {
		for _, action := range actions {
			w, is := action.(SayAsks)
			if !is {
				continue
			}
			words++
			if bytes := len(slices.Concat(frames(w)...)); len(w.Asks) > maxItems || bytes > maxFrames || now.Sub(last) < 20*time.Millisecond {
				t.Errorf("word of %d asks, %d bytes, %v after the last one", len(w.Asks), bytes, now.Sub(last))
			}
			last = now
		}
	}
	for i := range 200 {
		s := strayOf(i)
		s.Frame = append(s.Frame, make([]byte, 1400)...)
		check(start, a.Stray(start, s))
	}
	for next := a.Next(); next.Before(ms(1000)); next = a.Next() {
		check(next, a.Tick(next))
	}
	if words < 20 {
		t.Errorf("%d words", words)
	}
}

func frames(w SayAsks) (out [][]byte) {
	for _, a := range w.Asks {
		out = append(out, a.Frame)
	}
	return out
}
