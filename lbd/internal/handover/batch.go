package handover

import (
	"slices"
	"time"
)

// batch is what one taker wants of the users of one epoch.
type batch struct {
	Progress
	deadline time.Time
	queue    []*giving     // those that are Wanted, in their order; others are left over
	tried    map[Flow]bool // each once, until it is asked again
	again    uint64
	over     bool // nothing more is begun
	reported bool
	forget   time.Time // over: until then asks for it are known as old
}

// front makes a transfer the next one.
func (b *batch) front(t *giving) {
	b.queue = slices.DeleteFunc(b.queue, func(o *giving) bool { return o == t })
	b.queue = slices.Insert(b.queue, 0, t)
}

// batch finds or begins one. A taker's older batches of the service are over: it asks for more by the newer.
func (g *Giver) batch(id BatchID, again uint64, deadline time.Time) *batch {
	for _, b := range g.batches {
		isAgain := b.again < again
		switch {
		case b.BatchID == id && !b.over:
			if isAgain {
				b.again, b.deadline, b.tried = again, deadline, map[Flow]bool{}
			}
			return b
		case b.BatchID == id && !isAgain && b.forget.After(g.now):
			return b
		}
		if b.Taker == id.Taker && b.Service == id.Service {
			g.stopWanted(b, Why{Cancelled, "asked for by a newer epoch"})
		}
	}
	b := &batch{Progress: Progress{BatchID: id}, deadline: deadline, again: again, tried: map[Flow]bool{}}
	g.batches = append(g.batches, b)
	return b
}

// stopBatch ends all of a batch that has not been sent.
func (g *Giver) stopBatch(b *batch, why Why) {
	g.stopWanted(b, why)
	for _, t := range slices.Clone(g.moving) {
		if t.batch == b {
			g.stop(t, why)
		}
	}
}

// stopWanted ends what has not begun.
func (g *Giver) stopWanted(b *batch, why Why) {
	if b.over {
		return
	}
	b.over, b.forget = true, g.now.Add(g.limits.Remember)
	for _, t := range b.queue {
		if t.step == Wanted {
			g.stop(t, why)
		}
	}
	b.queue, b.tried = nil, nil
}

// settle begins what there is room for, asks for links, tells of batches that are finished, and hands out all actions.
func (g *Giver) settle() []Action {
	for _, b := range g.batches {
		g.fill(b)
		if b.over && len(b.queue) > 0 { // their link was lost with them
			g.drop(b)
		}
		if done := b.Wanted == 0 && b.Moving == 0; done != b.reported {
			if b.reported = done; done {
				g.out = append(g.out, Finished{b.Progress})
			}
		}
	}
	g.batches = slices.DeleteFunc(g.batches, func(b *batch) bool { return b.over && b.reported && over(b.forget, g.now) })
	out := g.out
	g.out = nil
	return out
}

// drop ends what came back into the queue of a batch that is over.
func (g *Giver) drop(b *batch) {
	for _, t := range b.queue {
		if t.step == Wanted {
			g.stop(t, Why{LinkLost, ""})
		}
	}
	b.queue = nil
}

// fill begins transfers of a batch, in order.
func (g *Giver) fill(b *batch) {
	if b.over || b.Wanted == 0 || !g.linked(b.Taker) {
		return
	}
	for len(b.queue) > 0 && b.Moving < g.limits.Window && g.states < g.limits.States {
		t := b.queue[0]
		b.queue = b.queue[1:]
		if t.step == Wanted {
			g.step(t, onTurn)
		}
	}
}

// linked says whether there is a link to a taker, and asks for one.
func (g *Giver) linked(taker string) bool {
	p := g.peer(taker)
	if !p.up && !p.dialing && !p.redial.After(g.now) {
		p.dialing = true
		g.out = append(g.out, Dial{taker, p.address})
	}
	return p.up
}
