package handover_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/epoch"

	"github.com/manycast/manycast/lbd/internal/handover"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return begin.Add(d) }

func number(n uint64) epoch.Epoch { return epoch.Epoch{Term: 1, Number: n} }

func flows(n int) []handover.Flow {
	all := make([]handover.Flow, n)
	for i := range all {
		all[i] = flow(i)
	}
	return all
}

func asked(taker string, e uint64, all ...handover.Flow) handover.Asked {
	return handover.Asked{
		Taker: taker, Ask: handover.Ask{Service: "web", Epoch: number(e), From: []string{"a"}, Address: "10.0.0.2:8465"},
		Flows: all, Deadline: at(2 * time.Second),
	}
}

func single(a handover.Asked) handover.Asked {
	a.Ask.Flow = &a.Flows[0]
	return a
}

// only are the actions of one type.
func only[A handover.Action](actions []handover.Action) []A {
	var all []A
	for _, a := range actions {
		if a, ok := a.(A); ok {
			all = append(all, a)
		}
	}
	return all
}

// messages are those of one type, and to whom.
func sent[M handover.Message](actions []handover.Action) (all []M, to []string) {
	for _, s := range only[handover.Send](actions) {
		if m, ok := s.Message.(M); ok {
			all, to = append(all, m), append(to, s.To)
		}
	}
	return all, to
}

func newGiver(t *testing.T, l handover.Limits, takers ...string) *handover.Giver {
	t.Helper()
	g := handover.NewGiver("a", 7, l)
	for _, taker := range takers {
		g.LinkUp(begin, taker, 9)
	}
	return g
}

func ask(t *testing.T, g *handover.Giver, now time.Time, a handover.Asked) []handover.Action {
	t.Helper()
	actions, err := g.Asked(now, a)
	if err != nil {
		t.Fatal(err)
	}
	return actions
}

// send takes a transfer of a giver until its state is sent.
func send(g *handover.Giver, taker string, id handover.ID) []handover.Action {
	g.Received(begin, taker, handover.Ready{ID: id})
	g.Exported(begin, id, []byte("app"), nil)
	return g.Frozen(begin, id, []byte("kernel"), nil)
}

func TestBatch(t *testing.T) {
	const n = 10_000
	g := newGiver(t, handover.Limits{}, "b")
	actions := ask(t, g, begin, asked("b", 1, flows(n)...))
	var order []handover.Flow
	var finished []handover.Finished
	given := 0
	for len(actions) > 0 {
		offers, _ := sent[handover.Offer](actions)
		given += len(only[handover.Close](actions))
		finished = append(finished, only[handover.Finished](actions)...)
		actions = nil
		for _, o := range offers {
			order = append(order, o.Flow)
			states, _ := sent[handover.State](send(g, "b", o.ID))
			if len(states) != 1 || string(states[0].Kernel)+string(states[0].Application) != "kernelapp" {
				t.Fatalf("state %+v", states)
			}
			if p := g.Batches()[0]; p.Moving > 64 || p.Wanted+p.Moving+p.Given != n {
				t.Fatalf("progress %+v", p)
			}
			actions = append(actions, g.Received(begin, "b", handover.Took{ID: o.ID})...)
		}
	}
	if !slices.Equal(order, flows(n)) || given != n {
		t.Errorf("%d offered, in order: %v; %d closed", len(order), slices.Equal(order, flows(n)), given)
	}
	if len(finished) != 1 || finished[0].Given != n || finished[0].Bytes != n*9 {
		t.Errorf("finished %+v", finished)
	}
}

func TestWindowAndBytes(t *testing.T) {
	g := newGiver(t, handover.Limits{Window: 3, States: 20}, "b")
	offers, _ := sent[handover.Offer](ask(t, g, begin, asked("b", 1, flows(9)...)))
	if len(offers) != 3 {
		t.Fatalf("%d offers", len(offers))
	}
	for _, o := range offers {
		send(g, "b", o.ID)
	}
	if more, _ := sent[handover.Offer](g.Received(begin, "b", handover.Took{ID: offers[0].ID})); len(more) != 1 {
		t.Errorf("18 bytes are on their way, and %d transfers begin", len(more))
	}
	g = newGiver(t, handover.Limits{Window: 3, States: 9}, "b")
	offers, _ = sent[handover.Offer](ask(t, g, begin, asked("b", 1, flows(9)...)))
	for _, o := range offers {
		send(g, "b", o.ID)
	}
	if more, _ := sent[handover.Offer](g.Received(begin, "b", handover.Took{ID: offers[0].ID})); len(more) != 0 {
		t.Errorf("18 bytes of 9 are on their way, and %d transfers begin", len(more))
	}
}

func TestOneFlowGoesFirst(t *testing.T) {
	g := newGiver(t, handover.Limits{Window: 1}, "b")
	offers, _ := sent[handover.Offer](ask(t, g, begin, asked("b", 1, flows(9)...)))
	ask(t, g, begin, single(asked("b", 1, flow(7))))
	ask(t, g, begin, single(asked("b", 1, flow(20)))) // one that the batch did not have
	var order []handover.Flow
	for range 3 {
		offers, _ = sent[handover.Offer](g.Received(begin, "b", handover.Refused{ID: offers[0].ID}))
		order = append(order, offers[0].Flow)
	}
	if !slices.Equal(order, []handover.Flow{flow(20), flow(7), flow(1)}) {
		t.Errorf("order %v", order)
	}
}

func TestAskedTwice(t *testing.T) {
	g := newGiver(t, handover.Limits{}, "b")
	first, _ := sent[handover.Offer](ask(t, g, begin, asked("b", 1, flow(1))))
	if again := ask(t, g, begin, asked("b", 1, flow(1))); len(again) > 0 {
		t.Errorf("on its way, and asked for again: %+v", again)
	}
	g.Received(begin, "b", handover.Refused{ID: first[0].ID, Why: handover.Why{Reason: handover.Full}})
	if again := ask(t, g, begin, single(asked("b", 1, flow(1)))); len(again) > 0 {
		t.Errorf("it stays, and is asked for again: %+v", again)
	}
	if offers, _ := sent[handover.Offer](ask(t, g, begin, asked("b", 2, flow(1)))); len(offers) != 1 || offers[0].Number != 2 {
		t.Errorf("a new epoch: %+v", offers)
	}
}

func TestOlderEpochIsRefused(t *testing.T) {
	g := newGiver(t, handover.Limits{}, "b", "c")
	ask(t, g, begin, asked("c", 2, flow(1)))
	if actions, err := g.Asked(begin, asked("b", 1, flow(2))); err == nil || len(actions) > 0 {
		t.Errorf("taken: %+v", actions)
	}
}

// TestNewerEpoch asks for what is to go to another one: before its application has let go it goes to the newer.
func TestNewerEpoch(t *testing.T) {
	g := newGiver(t, handover.Limits{Window: 2}, "b", "c")
	offers, _ := sent[handover.Offer](ask(t, g, begin, asked("b", 1, flows(3)...)))
	g.Received(begin, "b", handover.Ready{ID: offers[0].ID}) // exporting
	actions := ask(t, g, begin, asked("c", 2, flows(3)...))
	cancels, to := sent[handover.Cancel](actions)
	if len(cancels) != 1 || cancels[0].ID != offers[1].ID || to[0] != "b" {
		t.Errorf("cancelled %+v at %v", cancels, to)
	}
	more, to := sent[handover.Offer](actions)
	if len(more) != 2 || more[0].Flow != flow(1) || more[1].Flow != flow(2) || to[0] != "c" {
		t.Errorf("offered %+v to %v", more, to)
	}
}

func TestDeadlineAndCancel(t *testing.T) {
	for what, stop := range map[string]func(*handover.Giver) []handover.Action{
		"deadline": func(g *handover.Giver) []handover.Action { return g.Tick(at(2 * time.Second)) },
		"cancel": func(g *handover.Giver) []handover.Action {
			if other := g.Cancel(begin, "mail"); len(other) > 0 {
				t.Errorf("another service's: %+v", other)
			}
			return g.Cancel(begin, "web")
		},
	} {
		g := newGiver(t, handover.Limits{Window: 2}, "b")
		offers, _ := sent[handover.Offer](ask(t, g, begin, asked("b", 1, flows(5)...)))
		send(g, "b", offers[0].ID)
		actions := stop(g)
		reports := only[handover.Report](actions)
		if len(reports) != 4 || len(only[handover.Finished](actions)) != 0 {
			t.Errorf("%s: %d stayed, finished %+v", what, len(reports), only[handover.Finished](actions))
		}
		for _, r := range reports {
			if r.Outcome != handover.Stayed || r.Flow == offers[0].Flow || r.Why.Reason != handover.Deadline && r.Why.Reason != handover.Cancelled {
				t.Errorf("%s: %+v", what, r)
			}
		}
		// What was sent is the taker's: the batch ends with it, and takes nothing up any more.
		done := only[handover.Finished](g.Received(begin, "b", handover.Took{ID: offers[0].ID}))
		if len(done) != 1 || done[0].Given != 1 || done[0].Stayed != 4 {
			t.Errorf("%s: finished %+v", what, done)
		}
		if late := ask(t, g, begin, asked("b", 1, flow(9))); len(late) > 0 {
			t.Errorf("%s: %+v afterwards", what, late)
		}
		again := asked("b", 1, offers[1].Flow)
		again.Ask.Again, again.Deadline = 1, at(time.Minute)
		if offered, _ := sent[handover.Offer](ask(t, g, begin, again)); len(offered) != 1 || offered[0].Flow != offers[1].Flow {
			t.Errorf("%s: asked again: %+v", what, offered)
		} else {
			g.Received(begin, "b", handover.Refused{ID: offered[0].ID})
		}
		for _, word := range []handover.Asked{asked("b", 1, flow(9)), again} { // said before, or twice
			if offered, _ := sent[handover.Offer](ask(t, g, begin, word)); len(offered) > 0 {
				t.Errorf("%s: an old word: %+v", what, offered)
			}
		}
		g.Cancel(begin, "web")
		if next := g.Next(); next.IsZero() || !next.After(at(2*time.Second)) {
			t.Errorf("%s: next %v", what, next)
		}
		g.Tick(at(time.Hour))
		if len(g.Batches()) != 0 || !g.Next().IsZero() {
			t.Errorf("%s: remembered for ever: %+v, next %v", what, g.Batches(), g.Next())
		}
	}
}

func TestLinkIsDialledAgain(t *testing.T) {
	g := newGiver(t, handover.Limits{Window: 1, Backoff: 20 * time.Millisecond})
	dials := only[handover.Dial](ask(t, g, begin, asked("b", 1, flows(2)...)))
	if len(dials) != 1 || dials[0] != (handover.Dial{To: "b", Address: "10.0.0.2:8465"}) {
		t.Fatalf("dials %+v", dials)
	}
	if again := ask(t, g, begin, asked("b", 1, flow(1))); len(again) > 0 {
		t.Errorf("dialling, and then %+v", again)
	}
	now := begin
	for _, pause := range []time.Duration{20, 40, 80} {
		g.LinkDown(now, "b")
		if next := g.Next(); next != now.Add(pause*time.Millisecond) {
			t.Fatalf("next dial after %v, not %v ms", next.Sub(now), int(pause))
		}
		now = g.Next()
		if dials := only[handover.Dial](g.Tick(now)); len(dials) != 1 {
			t.Fatalf("dials %+v", dials)
		}
	}
	first, _ := sent[handover.Offer](g.LinkUp(now, "b", 9))
	g.LinkDown(now, "b")
	g.Tick(g.Next())
	again, _ := sent[handover.Offer](g.LinkUp(now, "b", 9))
	if len(first) != 1 || len(again) != 1 || first[0].Flow != again[0].Flow || first[0].ID == again[0].ID {
		t.Errorf("offered %+v, and by the next link %+v", first, again)
	}
}

// TestForeignWords: what others say of a transfer is nothing.
func TestForeignWords(t *testing.T) {
	g := newGiver(t, handover.Limits{}, "b", "c")
	offers, _ := sent[handover.Offer](ask(t, g, begin, asked("b", 1, flow(1))))
	id := offers[0].ID
	send(g, "b", id)
	for _, m := range []handover.Message{handover.Took{ID: id}, handover.Failed{ID: id}} {
		if actions := g.Received(begin, "c", m); len(actions) > 0 {
			t.Errorf("c says %T: %+v", m, actions)
		}
	}
	if actions := g.Verdict(begin, "b", handover.Verdict{ID: id, Fate: handover.Never}); len(actions) > 0 {
		t.Errorf("a verdict before anybody asked: %+v", actions)
	}
	g.LinkDown(begin, "b")
	for _, wrong := range []handover.ID{{Giver: "c", Boot: 7, Number: 1}, {Giver: "a", Boot: 8, Number: 1}, {Giver: "a", Boot: 7, Number: 2}} {
		if actions := g.Verdict(begin, "b", handover.Verdict{ID: wrong, Fate: handover.Never}); len(actions) > 0 {
			t.Errorf("a verdict of %v: %+v", wrong, actions)
		}
	}
	if actions := g.Verdict(begin, "c", handover.Verdict{ID: id, Fate: handover.Never}); len(actions) > 0 {
		t.Errorf("c's verdict: %+v", actions)
	}
	if actions := g.Verdict(begin, "b", handover.Verdict{ID: id, Fate: handover.Never}); len(only[handover.Thaw](actions)) != 1 {
		t.Errorf("b's verdict: %+v", actions)
	}
}

func TestTakerStartedAnew(t *testing.T) {
	for what, tell := range map[string]func(*handover.Giver) []handover.Action{
		"channel": func(g *handover.Giver) []handover.Action { return g.Started(begin, "b", 10) },
		"link":    func(g *handover.Giver) []handover.Action { return g.LinkUp(begin, "b", 10) },
	} {
		g := newGiver(t, handover.Limits{}, "b")
		offers, _ := sent[handover.Offer](ask(t, g, begin, asked("b", 1, flow(1))))
		send(g, "b", offers[0].ID)
		reports := only[handover.Report](tell(g))
		if len(reports) != 1 || reports[0].Outcome != handover.Lost || reports[0].Why.Reason != handover.Gone {
			t.Errorf("%s: %+v", what, reports)
		}
		g.LinkUp(begin, "b", 10)
		if offers, _ := sent[handover.Offer](ask(t, g, begin, asked("b", 1, flow(2)))); len(offers) != 1 {
			t.Errorf("%s: it asks again, and is offered %+v", what, offers)
		}
	}
}

// TestReturned: A gave to B, has not heard of it, and B gives it back. An offer that B made when it had the connection before says nothing.
func TestReturned(t *testing.T) {
	g := newGiver(t, handover.Limits{}, "b")
	offers, _ := sent[handover.Offer](ask(t, g, begin, asked("b", 2, flow(1))))
	if actions := g.Returned(begin, offer("b", 2, 3, flow(1))); len(actions) > 0 {
		t.Errorf("before it was sent: %+v", actions)
	}
	send(g, "b", offers[0].ID)
	for _, e := range []uint64{1, 2} {
		if actions := g.Returned(begin, offer("b", 1, e, flow(1))); len(actions) > 0 {
			t.Errorf("an offer of epoch %d that came late: %+v", e, actions)
		}
	}
	actions := g.Returned(begin, offer("b", 2, 3, flow(1)))
	if r := only[handover.Report](actions); len(r) != 1 || r[0].Outcome != handover.Given || len(only[handover.Close](actions)) != 1 {
		t.Errorf("%+v", actions)
	}
}

func newTaker(l handover.Limits, givers ...string) *handover.Taker {
	k := handover.NewTaker("b", 9, "10.0.0.2:8465", l)
	for _, giver := range givers {
		k.LinkUp(begin, giver, 7)
	}
	return k
}

func offer(giver string, n uint64, e uint64, f handover.Flow) handover.Offer {
	return handover.Offer{Transfer: handover.Transfer{ID: handover.ID{Giver: giver, Boot: 7, Number: n}, Flow: f}, Service: "web", Epoch: number(e)}
}

// isLive takes an offered transfer to its end.
func isLive(k *handover.Taker, o handover.Offer) []handover.Action {
	k.Received(begin, o.Giver, handover.State{ID: o.ID})
	k.Restored(begin, o.ID, nil)
	k.Imported(begin, o.ID, nil)
	return k.Thawed(begin, o.ID, nil)
}

func TestOffersRefused(t *testing.T) {
	ok := handover.Why{}
	for _, c := range []struct {
		what   string
		giver  string
		offer  handover.Offer
		caller handover.Why
		want   handover.Reason
	}{
		{"caller's reason", "a", offer("a", 9, 1, flow(9)), handover.Why{Reason: handover.Here}, handover.Here},
		{"in another's name", "a", offer("c", 9, 1, flow(9)), ok, handover.Foreign},
		{"of another boot", "a", func() handover.Offer { o := offer("a", 9, 1, flow(9)); o.Boot = 8; return o }(), ok, handover.Foreign},
		{"twice", "a", offer("a", 1, 1, flow(1)), ok, handover.Stale},
		{"twice, and it has ended", "a", offer("a", 2, 1, flow(2)), ok, handover.Stale},
		{"is being restored", "c", offer("c", 9, 2, flow(3)), ok, handover.Busy},
		{"of an older epoch", "c", offer("c", 9, 0, flow(1)), ok, handover.Stale},
		{"one too many", "a", offer("a", 9, 1, flow(9)), ok, handover.Full},
	} {
		k := newTaker(handover.Limits{Held: 2}, "a", "c")
		for n := range uint64(3) {
			o := offer("a", n+1, 1, flow(int(n)+1))
			k.Offered(begin, "a", o, ok)
			switch n {
			case 1:
				isLive(k, o)
			case 2:
				k.Received(begin, "a", handover.State{ID: o.ID})
			}
		}
		refused, to := sent[handover.Refused](k.Offered(begin, c.giver, c.offer, c.caller))
		if len(refused) != 1 || refused[0].Why.Reason != c.want || to[0] != c.giver || refused[0].ID != c.offer.ID {
			t.Errorf("%s: %+v to %v", c.what, refused, to)
		}
	}
}

// TestNewerOffer: who has no state yet gives way.
func TestNewerOffer(t *testing.T) {
	k := newTaker(handover.Limits{}, "a", "c")
	old, newer := offer("a", 1, 1, flow(1)), offer("c", 1, 2, flow(1))
	k.Offered(begin, "a", old, handover.Why{})
	actions := k.Offered(begin, "c", newer, handover.Why{})
	if ready, to := sent[handover.Ready](actions); len(ready) != 1 || to[0] != "c" || len(only[handover.Open](actions)) != 1 {
		t.Errorf("%+v", actions)
	}
	if failed, _ := sent[handover.Failed](k.Received(begin, "a", handover.State{ID: old.ID})); len(failed) != 1 {
		t.Errorf("the old one's state: %+v", failed)
	}
	if took, _ := sent[handover.Took](isLive(k, newer)); len(took) != 1 {
		t.Errorf("the new one: %+v", took)
	}
}

func TestFates(t *testing.T) {
	k := newTaker(handover.Limits{Remember: time.Minute}, "a")
	taken, given := offer("a", 1, 1, flow(1)), offer("a", 2, 1, flow(2))
	for _, o := range []handover.Offer{taken, given} {
		k.Offered(begin, "a", o, handover.Why{})
	}
	isLive(k, taken)
	k.LinkDown(begin, "a")
	fate := func(now time.Time, from string, q handover.Query) []handover.Fate {
		var all []handover.Fate
		for _, s := range only[handover.Say](k.Asked(now, from, q)) {
			all = append(all, s.Word.(handover.Verdict).Fate)
		}
		return all
	}
	for _, c := range []struct {
		what string
		now  time.Time
		from string
		q    handover.Query
		want []handover.Fate
	}{
		{"taken", begin, "a", handover.Query{ID: taken.ID, Taker: "b", Boot: 9}, []handover.Fate{handover.Taken}},
		{"let go", begin, "a", handover.Query{ID: given.ID, Taker: "b", Boot: 9}, []handover.Fate{handover.Never}},
		{"of another boot", begin, "a", handover.Query{ID: taken.ID, Taker: "b", Boot: 8}, []handover.Fate{handover.Untold}},
		{"of another taker", begin, "a", handover.Query{ID: taken.ID, Taker: "c", Boot: 9}, nil},
		{"in another's name", begin, "c", handover.Query{ID: taken.ID, Taker: "b", Boot: 9}, nil},
		{"unknown", begin, "a", handover.Query{ID: offer("a", 5, 1, flow(5)).ID, Taker: "b", Boot: 9}, []handover.Fate{handover.Untold}},
	} {
		if got := fate(c.now, c.from, c.q); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	if next := k.Next(); next != at(time.Minute) {
		t.Errorf("next %v", next)
	}
	k.Tick(at(time.Minute))
	if got := fate(at(time.Minute), "a", handover.Query{ID: given.ID, Taker: "b", Boot: 9}); !slices.Equal(got, []handover.Fate{handover.Untold}) {
		t.Errorf("forgotten: %v", got)
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	k := newTaker(handover.Limits{Ended: 2}, "a")
	for n := range uint64(3) {
		o := offer("a", n+1, 1, flow(int(n)))
		k.Offered(begin, "a", o, handover.Why{})
		k.Received(begin, "a", handover.Cancel{ID: o.ID})
	}
	for n, want := range []handover.Fate{handover.Untold, handover.Never, handover.Never} {
		says := only[handover.Say](k.Asked(begin, "a", handover.Query{ID: offer("a", uint64(n)+1, 1, flow(n)).ID, Taker: "b", Boot: 9}))
		if len(says) != 1 || says[0].Word.(handover.Verdict).Fate != want {
			t.Errorf("transfer %d: %+v, want %v", n+1, says, want)
		}
	}
}

func TestAsks(t *testing.T) {
	k := newTaker(handover.Limits{Backoff: 20 * time.Millisecond, MaxBackoff: 80 * time.Millisecond}, "a", "c")
	says := only[handover.Say](k.Want(begin, "web", number(1), []string{"a", "c"}, at(300*time.Millisecond)))
	var when []time.Duration
	for len(says) == 1 {
		when = append(when, k.Next().Sub(begin))
		says = only[handover.Say](k.Tick(k.Next()))
	}
	want := []time.Duration{20, 60, 140, 220, 300}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(when, want) {
		t.Errorf("said again at %v", when)
	}
	if !k.Next().IsZero() {
		t.Errorf("after the deadline, next is %v", k.Next())
	}
}

func TestAsksEndWithOffers(t *testing.T) {
	k := newTaker(handover.Limits{}, "a", "c")
	k.Want(begin, "web", number(2), []string{"a", "c"}, at(time.Second))
	k.WantFlow(begin, "web", number(2), flow(1), nil, at(time.Second))
	if again := k.WantFlow(begin, "web", number(2), flow(1), nil, at(time.Second)); len(again) > 0 {
		t.Errorf("asked for twice: %+v", again)
	}
	if older := k.Want(begin, "web", number(1), []string{"a"}, at(time.Second)); len(older) > 0 {
		t.Errorf("of an older epoch: %+v", older)
	}
	k.Offered(begin, "a", offer("a", 1, 2, flow(1)), handover.Why{})
	says := only[handover.Say](k.Tick(at(20 * time.Millisecond)))
	if len(says) != 1 || fmt.Sprint(says[0].Word.(handover.Ask).From) != "[c]" {
		t.Errorf("afterwards %+v", says)
	}
	k.Offered(begin, "c", offer("c", 1, 2, flow(2)), handover.Why{})
	if says := only[handover.Say](k.Tick(at(100 * time.Millisecond))); len(says) != 0 {
		t.Errorf("at last %+v", says)
	}
}

func TestFlowsAskedForAreBounded(t *testing.T) {
	k := newTaker(handover.Limits{Asked: 10})
	said := 0
	for i := range 100 {
		said += len(k.WantFlow(begin, "web", number(1), flow(i), nil, at(time.Second)))
	}
	if said != 10 {
		t.Errorf("%d flows were asked for", said)
	}
	k.Tick(at(time.Second))
	if again := k.WantFlow(at(time.Second), "web", number(1), flow(0), nil, at(2*time.Second)); len(again) != 1 {
		t.Errorf("after the deadline: %+v", again)
	}
}
