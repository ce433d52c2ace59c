package movement_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

func newAnnouncer() *movement.Announcer {
	return movement.NewAnnouncer(movement.AnnouncerLimits{}, signer)
}

// sent is how many messages actions have.
func sent(actions []movement.Action) int {
	n := 0
	for _, a := range actions {
		if _, is := a.(movement.Send); is {
			n++
		}
	}
	return n
}

func listens(actions []movement.Action) int {
	n := 0
	for _, a := range actions {
		if _, is := a.(movement.Listen); is {
			n++
		}
	}
	return n
}

// outcomes are those that actions report.
func outcomes(actions []movement.Action) []movement.Outcome {
	var out []movement.Outcome
	for _, a := range actions {
		if r, is := a.(movement.Report); is {
			out = append(out, r.Outcome)
		}
	}
	return out
}

// drain lets time pass until nothing is due, or until the end, and says when messages were sent.
func drain(a *movement.Announcer, until time.Time) (at []time.Duration, out []movement.Outcome) {
	for n := a.Next(); !n.IsZero() && !n.After(until); n = a.Next() {
		actions := a.Tick(n)
		for range sent(actions) {
			at = append(at, n.Sub(start))
		}
		out = append(out, outcomes(actions)...)
	}
	return at, out
}

func TestAnnouncerRepeatsAndGivesUp(t *testing.T) {
	a := newAnnouncer()
	actions := a.Took(start, change(1, s1, s2), []netip.AddrPort{s1})
	if len(actions) != 1 || sent(actions) != 1 {
		t.Fatalf("at first %v", actions)
	}
	s, err := wire.Decode(actions[0].(movement.Send).Raw)
	if want := change(1, s1, s2); err != nil || s.Change != want || !s.Verify(public(1).Public) {
		t.Fatalf("sent %+v (%v), want %+v", s.Change, err, want)
	}
	at, out := drain(a, start.Add(25*time.Minute))
	var want []time.Duration
	d := 5 * time.Millisecond
	for wait := d; d < 10*time.Second; {
		want = append(want, d)
		wait = min(2*wait, 500*time.Millisecond)
		d += wait
	}
	for wait := 30 * time.Second; d+wait <= 25*time.Minute; { // its host may sleep
		d += wait
		want = append(want, d)
		wait = min(2*wait, 4*time.Minute)
	}
	if diff := cmp.Diff(want, at); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if !slices.Equal(out, []movement.Outcome{movement.GivenUp}) || a.Counters().GivenUp != 1 {
		t.Errorf("outcomes %v, %+v", out, a.Counters())
	}
	if out := outcomes(a.Gone(start.Add(time.Hour), flow)); len(out) != 0 || a.Moves() != 0 {
		t.Errorf("a second outcome: %v; %d moves", out, a.Moves())
	}
}

// A user's host that slept while its connection moved, and wakes an hour later, is told though neither side has anything to say.
func TestAnnouncerTellsWhoHasSlept(t *testing.T) {
	a := newAnnouncer()
	a.Took(start, change(1, s1, s2), []netip.AddrPort{s1})
	awake := start.Add(time.Hour)
	drain(a, awake)
	next := a.Next()
	if next.IsZero() || next.Sub(awake) > 4*time.Minute {
		t.Fatalf("it wakes at %v, and is told at %v", awake, next)
	}
	actions := a.Tick(next)
	if sent(actions) != 1 {
		t.Fatalf("%v", actions)
	}
	if s, err := wire.Decode(actions[0].(movement.Send).Raw); err != nil || !s.Time.Equal(next) || s.Sequence != 1 {
		t.Errorf("signed at %v, told at %v: %v", s.Time, next, err)
	}
	if out := outcomes(a.Heard(next.Add(time.Millisecond), flow, s2)); !slices.Equal(out, []movement.Outcome{movement.Arrived}) || !a.Next().IsZero() {
		t.Errorf("outcome %v, next at %v", out, a.Next())
	}
	if c := a.Counters(); c.GivenUp != 1 || c.Arrived != 1 {
		t.Errorf("%+v", c)
	}
}

// However many users never follow, to tell them on is a bounded number of messages a second, each its part.
func TestAnnouncerTellsSlowlyAtARate(t *testing.T) {
	const n = 5000
	a := movement.NewAnnouncer(movement.AnnouncerLimits{}, func(c wire.Change) (wire.Signed, error) { return wire.Signed{Change: c, Raw: []byte{1}}, nil })
	for i := range n {
		c := change(1, s1, s2)
		c.User = netip.AddrPortFrom(c.User.Addr(), uint16(1024+i))
		a.Took(start, c, []netip.AddrPort{s1})
	}
	drain(a, start.Add(20*time.Second))
	at, told, second := a.Next(), map[movement.Flow]int{}, map[int]int{}
	for until := at.Add(4 * time.Minute); !at.IsZero() && !at.After(until); at = a.Next() {
		for _, action := range a.Tick(at) {
			if s, is := action.(movement.Send); is {
				told[s.Flow]++
				second[int(at.Sub(start)/time.Second)]++
			}
		}
	}
	for s, sent := range second {
		if sent > 101 { // the second may begin between two
			t.Errorf("%d in second %d", sent, s)
		}
	}
	if len(told) != n {
		t.Errorf("%d of %d were told", len(told), n)
	}
}

func TestAnnouncerOfSlowMoveIsSilentWhileHeld(t *testing.T) {
	a := newAnnouncer()
	a.Took(start, change(1, s1, s2), []netip.AddrPort{s1})
	drain(a, start.Add(time.Minute))
	a.Held(flow)
	if !a.Next().IsZero() {
		t.Error("something is due while the connection is given away")
	}
	if later := start.Add(2 * time.Minute); sent(a.Released(later, flow)) != 0 || !a.Next().After(later) || sent(a.Tick(a.Next())) != 1 {
		t.Error("it stays, and is told at once, or not at all")
	}
}

func TestAnnouncerEndsWithTheFirstSegment(t *testing.T) {
	a := newAnnouncer()
	a.Took(start, change(1, s1, s2), []netip.AddrPort{s1})
	if actions := a.Heard(ms(1), flow, s1); len(actions) != 0 {
		t.Errorf("on its way before the move: %v", actions)
	}
	if actions := a.Heard(ms(2), movement.Flow{User: flow.VIP, VIP: flow.User}, s2); len(actions) != 0 {
		t.Errorf("of another connection: %v", actions)
	}
	actions := a.Heard(ms(3), flow, s2)
	want := []movement.Action{movement.Report{Flow: flow, Sequence: 1, Outcome: movement.Arrived, Sent: 1, After: 3 * time.Millisecond}}
	if diff := cmp.Diff(want, actions, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if !a.Next().IsZero() {
		t.Error("something is due still")
	}
	if actions := a.Heard(ms(4), flow, s1); len(actions) != 0 {
		t.Errorf("a late segment: %v", actions)
	}
}

func TestAnnouncerTakesLaterMovesAlone(t *testing.T) {
	a := newAnnouncer()
	a.Took(start, change(3, s1, s2), nil)
	for _, n := range []uint64{1, 3} {
		if actions := a.Took(start, change(n, s3, s2), nil); len(actions) != 0 {
			t.Errorf("move %d after 3: %v", n, actions)
		}
	}
	actions := a.Took(ms(7), change(5, s3, s2), nil)
	if sent(actions) != 1 || !slices.Equal(outcomes(actions), []movement.Outcome{movement.Superseded}) {
		t.Errorf("a later move: %v", actions)
	}
	for _, x := range a.Tick(ms(12)) {
		if s, err := wire.Decode(x.(movement.Send).Raw); err != nil || s.Sequence != 5 {
			t.Errorf("move %d is announced still (%v)", s.Sequence, err)
		}
	}
}

func TestAnnouncerIsSilentWhileHeld(t *testing.T) {
	a := newAnnouncer()
	a.Took(start, change(1, s1, s2), []netip.AddrPort{s1})
	a.Held(flow)
	if n := a.Next(); !n.IsZero() {
		t.Errorf("something is due at %v while the connection is given away", n)
	}
	if actions := a.Heard(ms(100), flow, s1); len(actions) != 0 {
		t.Errorf("while held: %v", actions)
	}
	if sent(a.Released(ms(200), flow)) != 1 {
		t.Error("it stays, and is not announced")
	}
	if len(a.Released(ms(201), flow)) != 0 {
		t.Error("released twice")
	}
	a.Held(flow)
	if out := outcomes(a.Gone(ms(202), flow)); !slices.Equal(out, []movement.Outcome{movement.Ended}) {
		t.Errorf("given away: %v", out)
	}
	if len(a.Released(ms(203), flow))+len(a.Heard(ms(203), flow, s2)) != 0 || !a.Next().IsZero() {
		t.Error("not forgotten")
	}
}

// A connection that comes back before its user has followed it away: the user's segments here prove nothing until B's word has died.
func TestAnnouncerOfAMoveBack(t *testing.T) {
	a := newAnnouncer()
	a.Took(start, change(2, s2, s1), []netip.AddrPort{s1, s2})
	if actions := a.Heard(ms(1), flow, s1); len(actions) != 0 {
		t.Errorf("the first segment: %v", actions)
	}
	for n := a.Next(); !n.After(ms(1999)); n = a.Next() {
		if listens(a.Tick(n)) != 0 {
			t.Errorf("listens after %v", n.Sub(start))
		}
	}
	if a.Counters().Sent < 8 {
		t.Errorf("%d messages in the lifetime of others", a.Counters().Sent)
	}
	if actions := a.Heard(ms(1999), flow, s2); len(actions) != 0 {
		t.Errorf("its user has followed it away meanwhile: %v", actions)
	}
	if n := listens(a.Tick(a.Next())) + listens(a.Tick(a.Next())) + listens(a.Tick(a.Next())); n != 1 {
		t.Errorf("listens %d times when segments prove something", n)
	}
	if actions := a.Heard(ms(4000), flow, s1); !slices.Equal(outcomes(actions), []movement.Outcome{movement.Arrived}) {
		t.Errorf("after the lifetime: %v", actions)
	}
}

// Who is elsewhere for good, for its host is without keys or has a wrong clock, costs a row of messages now and then.
func TestAnnouncerOfAUserWhoNeverFollows(t *testing.T) {
	a := newAnnouncer()
	a.Took(start, change(1, s1, s2), []netip.AddrPort{s1})
	for i := range 120_000 { // a segment each millisecond
		now := ms(i)
		a.Tick(now)
		a.Heard(now, flow, s1)
	}
	if n := a.Counters().Sent; n != 4*26 {
		t.Errorf("%d messages in 120 s", n)
	}
}

func TestAnnouncerBeginsAnewWhenTheUserSpeaks(t *testing.T) {
	signed := 0
	a := movement.NewAnnouncer(movement.AnnouncerLimits{}, func(c wire.Change) (wire.Signed, error) {
		signed++
		return signer(c)
	})
	a.Took(start, change(1, s1, s2), []netip.AddrPort{s1})
	drain(a, start.Add(time.Minute))
	later, before := start.Add(time.Hour), signed
	actions := a.Heard(later, flow, s1)
	if sent(actions) != 1 || signed != before+1 {
		t.Fatalf("%v, signed %d times", actions, signed)
	}
	if s, err := wire.Decode(actions[0].(movement.Send).Raw); err != nil || !s.Time.Equal(later) {
		t.Errorf("signed at %v, told at %v", s.Time, later)
	}
	if out := outcomes(a.Heard(later.Add(time.Millisecond), flow, s2)); !slices.Equal(out, []movement.Outcome{movement.Arrived}) {
		t.Errorf("outcome %v", out)
	}
}

// Whoever forges a segment of the user's ends an announcement too soon, and not for long.
func TestAnnouncerDoubtsWhatItHeard(t *testing.T) {
	a := newAnnouncer()
	a.Took(start, change(1, s1, s2), []netip.AddrPort{s1})
	a.Heard(ms(1), flow, s2)
	if actions := a.Heard(ms(1000), flow, s1); len(actions) != 0 {
		t.Errorf("a segment that may have been on its way: %v", actions)
	}
	if sent(a.Heard(ms(1001), flow, s1)) != 1 || sent(a.Tick(ms(1006))) != 1 {
		t.Error("the user is elsewhere, and nothing is announced")
	}
	if places, ok := a.Places(ms(1006), flow); !ok || len(places) != 0 {
		t.Errorf("places %v", places)
	}
	if out := outcomes(a.Heard(ms(2001), flow, s2)); !slices.Equal(out, []movement.Outcome{movement.Arrived}) {
		t.Errorf("outcome %v", out)
	}
}

func TestAnnouncerWithoutAKeyTriesAgain(t *testing.T) {
	err := errors.New("no key")
	a := movement.NewAnnouncer(movement.AnnouncerLimits{}, func(c wire.Change) (wire.Signed, error) {
		if err != nil {
			return wire.Signed{}, err
		}
		return signer(c)
	})
	if actions := a.Took(start, change(1, s1, s2), nil); len(actions) != 0 {
		t.Errorf("sent %v", actions)
	}
	if sent(a.Tick(ms(5))) != 0 || a.Counters().Unsigned != 2 || a.Counters().Sent != 0 {
		t.Errorf("%+v", a.Counters())
	}
	err = nil
	if sent(a.Tick(ms(15))) != 1 {
		t.Error("there is a key, and nothing is sent")
	}
}

func TestPlaces(t *testing.T) {
	a, now := newAnnouncer(), start
	want := func(what string, places ...netip.AddrPort) {
		t.Helper()
		if got, ok := a.Places(now, flow); !ok || !slices.Equal(got, places) {
			t.Errorf("%s: %v, %v, want %v", what, got, ok, places)
		}
	}
	if _, ok := a.Places(start, flow); ok {
		t.Error("places without a move")
	}
	a.Took(start, change(1, s1, s2), []netip.AddrPort{s1})
	want("not heard yet", s1, s2)
	a.Took(start, change(2, s1, s2), []netip.AddrPort{s1, s2})
	want("back", s1, s2)
	a.Took(start, change(3, s1, s2), nil)
	want("from anywhere")
	var many []netip.AddrPort
	for i := range 8 {
		many = append(many, netip.AddrPortFrom(s3.Addr(), uint16(1+i)))
	}
	a.Took(start, change(4, s1, s2), many)
	want("too many")
	a.Heard(ms(1), flow, s2)
	now = ms(1000)
	want("too many, and heard just now")
	now = ms(1001)
	want("and heard a while ago: it was at none of them", s2)
	a.Took(start, change(5, s1, s2), nil)
	a.Heard(ms(1), flow, s2)
	want("from anywhere, and heard too soon")
	a.Heard(ms(2000), flow, s2)
	now = ms(3000)
	want("heard when all else had died", s2)
	a.Took(start, change(6, s1, s2), []netip.AddrPort{s1})
	a.Heard(ms(2500), flow, s2)
	want("segments to the place before may be on their way", s1, s2)
}
