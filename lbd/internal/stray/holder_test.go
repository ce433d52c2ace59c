package stray

import (
	"testing"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

func ask(number uint64, i int) Ask {
	return Ask{Number: number, Service: "web", Flow: flowOf(i), Frame: strayOf(i).Frame}
}

func newHolder(limits Limits) *Holder {
	h := NewHolder(limits)
	h.Set(views(3))
	return h
}

func TestHolderServesOnceAndAnswersEachTime(t *testing.T) {
	h := newHolder(Limits{})
	a := ask(1, 1)
	want(t, "asked", h.Asked(start, member(0), a), "look")
	want(t, "not known", h.Looked(start, Look{"s1", a}, false), "")
	want(t, "known", h.Looked(ms(1), Look{"s1", a}, true), "inject, s1 1 gone false")
	want(t, "the word again", h.Looked(ms(50), Look{"s1", a}, true), "s1 1 gone false")
	want(t, "another asker", h.Looked(ms(100), Look{"s2", ask(1, 1)}, true), "inject, s2 1 gone false")
	want(t, "look", h.Tick(ms(1002)), "check")
	want(t, "there still", h.Checked(ms(1002), flowOf(1), true), "")
	want(t, "look again", h.Tick(ms(2003)), "check")
	want(t, "over", h.Checked(ms(2003), flowOf(1), false), "s2 1 gone true")
	want(t, "no more", h.Tick(ms(9000)), "")
	if c := h.Counters(); c.Served != 2 || c.Found != 3 || c.Ended != 1 || h.Held() != 0 || !h.Next().IsZero() {
		t.Errorf("%+v, %d held, next %v", c, h.Held(), h.Next())
	}
}

func TestWhatIsNotLookedFor(t *testing.T) {
	router, syns := member(0), ask(1, 1)
	router.Role = control.Router
	syns.Frame = frameOf(flowOf(1), syn)
	other := ask(1, 1)
	other.Frame = strayOf(2).Frame
	service := ask(1, 1)
	service.Service = "mail"
	vip := ask(1, 1)
	vip.Flow.VIP = flowOf(3).User
	for name, tt := range map[string]struct {
		from control.Member
		ask  Ask
	}{
		"of a router":            {router, ask(1, 1)},
		"of another's server":    {member(6), ask(1, 1)},
		"of another service":     {member(0), service},
		"of another address":     {member(0), vip},
		"packet that opens":      {member(0), syns},
		"packet of another flow": {member(0), other},
	} {
		h := newHolder(Limits{})
		want(t, name, h.Asked(start, tt.from, tt.ask), "")
		if h.Counters().Foreign != 1 {
			t.Errorf("%s is not counted", name)
		}
	}
}

func TestWhatIsHeldIsBounded(t *testing.T) {
	h := newHolder(Limits{Heard: 500, Held: 100})
	looks := 0
	for i := range 1000 {
		for _, action := range h.Asked(start, member(0), ask(uint64(i+1), i)) {
			if l, is := action.(Look); is {
				looks++
				h.Looked(start, l, true)
			}
		}
	}
	if looks != 500 || h.Held() != 100 || len(h.order) != 100 || h.Counters().Limited != 500 {
		t.Errorf("%d looks, %d held, %d in order, %+v", looks, h.Held(), len(h.order), h.Counters())
	}
	if h.held[flowOf(499)] == nil || h.held[flowOf(399)] != nil {
		t.Error("the first are not those that are forgotten")
	}
}

func TestPacketsOfFlows(t *testing.T) {
	six := dataplane.Flow{User: sixOf("[2001:db8::1]:9"), VIP: sixOf("[2001:db8::80]:80")}
	if !isOf(frameOf(six, ack), six) || !isOf(frameOf(flowOf(1), syn|ack), flowOf(1)) {
		t.Error("packets are not of their flows")
	}
	fragment := frameOf(flowOf(1), ack)
	fragment[ethernet+6] = 0x20
	udp := frameOf(flowOf(1), ack)
	udp[ethernet+9] = 17
	for name, frame := range map[string][]byte{
		"fragment": fragment, "UDP": udp, "short": frameOf(flowOf(1), ack)[:ethernet+39], "nothing": nil,
		"opens": frameOf(flowOf(1), syn), "long": append(frameOf(flowOf(1), ack), make([]byte, MaxFrame)...),
	} {
		if isOf(frame, flowOf(1)) {
			t.Errorf("%s is of the flow", name)
		}
	}
}
