package mover

import (
	"time"

	"github.com/manycast/manycast/lbd/internal/handover"
)

// carryOut does what the machines say. Messages are kept until flush.
func (m *Mover) carryOut(actions []handover.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case handover.Send:
			m.send(a)
		case handover.Say:
			m.say(a.Word)
		case handover.Dial:
			m.dial(a.To, a.Address)
		case handover.Report:
			m.counters.reported(a)
			m.log.Debug("connection", "flow", a.Flow, "to", a.Batch.Taker, "outcome", a.Outcome, "why", a.Why, "took", a.Took)
		case handover.Arrived:
			m.counters.arrived(a)
			m.log.Debug("connection", "flow", a.Flow, "from", a.Giver, "live", a.Live, "why", a.Why, "took", a.Took)
		case handover.Finished:
			m.log.Info("connections handed over", "service", a.Service, "epoch", a.Epoch, "to", a.Taker, "given", a.Given, "stayed", a.Stayed, "lost", a.Lost, "bytes", a.Bytes)
		default:
			m.handle(a)
		}
	}
}

// send keeps a message for flush. Ready waits until the packets of its flow are held: those that the giver sends on from then on would find nobody.
func (m *Mover) send(a handover.Send) {
	l := to{m.roleOf(a.Message), a.To}
	ready, is := a.Message.(handover.Ready)
	if !is {
		m.sending[l] = append(m.sending[l], a.Message)
		return
	}
	m.hands.do(m.holding[ready.ID], func() {
		m.tell(func(time.Time) []handover.Action {
			m.sending[l] = append(m.sending[l], ready)
			return nil
		})
	})
	delete(m.holding, ready.ID)
}

// roleOf is by which link a message goes.
func (m *Mover) roleOf(message handover.Message) role {
	switch message.(type) {
	case handover.Offer, handover.State, handover.Cancel:
		return gives
	}
	return takes
}

// handle has the hands do something.
func (m *Mover) handle(a handover.Action) {
	h := m.hands
	switch a := a.(type) {
	case handover.Export:
		id := a.ID
		h.export(a.Transfer, func(now time.Time, app []byte, err error) []handover.Action {
			return m.giver.Exported(now, id, app, err)
		})
	case handover.GiveBack:
		h.giveBack(a.Transfer)
	case handover.Pass:
		address, err := m.views.address(a.To)
		if err != nil {
			m.log.Warn("packets of a connection are not sent on", "flow", a.Flow, "err", err)
			return
		}
		h.pass(a.Transfer, address)
	case handover.Unpass:
		h.unpass(a.Transfer)
	case handover.Freeze:
		id := a.ID
		h.freeze(a.Transfer, func(now time.Time, state []byte, err error) []handover.Action {
			return m.giver.Frozen(now, id, state, err)
		})
	case handover.Thaw:
		h.thaw(a.Transfer)
	case handover.Close:
		h.close(a.Transfer)
	case handover.Hold:
		m.holding[a.ID] = a.Flow
		h.hold(a.Transfer)
	case handover.Restore:
		h.restore(a.Transfer, a.Kernel, m.taker.Restored)
	case handover.Import:
		h.imports(a.Transfer, a.Application, m.taker.Imported)
	case handover.GoLive:
		h.goLive(a.Transfer, m.taker.Thawed)
	case handover.Discard:
		h.discard(a.Transfer)
	case handover.Open:
		h.release(a.Transfer)
	}
}

// flush sends what this turn has to say, each link's together.
func (m *Mover) flush() {
	for l, messages := range m.sending {
		delete(m.sending, l)
		if link := m.links.up[l.role][l.name]; link != nil {
			_ = link.Send(messages...) // that it is down its reader tells
		}
	}
}
