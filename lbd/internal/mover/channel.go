package mover

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/handover"
)

// heard takes what came by the control channel.
func (m *Mover) heard() {
	members, messages := m.mail.Take()
	now := time.Now()
	for _, member := range members {
		if member.Boot != 0 {
			m.carryOut(m.giver.Started(now, member.Name, member.Boot))
		}
		if member.Health == control.Silent {
			m.carryOut(m.giver.Silent(now, member.Name))
		}
	}
	for _, message := range messages {
		actions, err := m.word(now, message)
		if err != nil {
			m.log.Warn("message on the control channel is not taken", "from", message.From.Name, "kind", message.Kind, "err", err)
		}
		m.carryOut(actions)
	}
}

func (m *Mover) word(now time.Time, r control.Received) ([]handover.Action, error) {
	switch r.Kind {
	case control.KindAsk:
		a, err := handover.DecodeAsk(r.Body)
		if err != nil {
			return nil, err
		}
		return nil, m.asked(r.From.Name, a)
	case control.KindQuery:
		q, err := handover.DecodeQuery(r.Body)
		if err != nil {
			return nil, err
		}
		return m.taker.Asked(now, r.From.Name, q), nil
	case control.KindVerdict:
		v, err := handover.DecodeVerdict(r.Body)
		if err != nil {
			return nil, err
		}
		return m.giver.Verdict(now, r.From.Name, v), nil
	}
	return nil, nil
}

// asked looks for what a taker wants, beside the loop: the socket table may be long. Of an epoch that is not executed here nothing is given; the
// taker asks again.
func (m *Mover) asked(taker string, a handover.Ask) error {
	view, known := m.views[a.Service]
	if !known || view.Allocation.Epoch != a.Epoch || a.Flow == nil && !slices.Contains(a.From, m.cfg.Name) {
		return nil
	}
	m.hands.work.Go(func() {
		flows, err := m.find(view, taker, a.Flow)
		m.tell(func(now time.Time) []handover.Action {
			var actions []handover.Action
			if err == nil {
				actions, err = m.giver.Asked(now, handover.Asked{Taker: taker, Ask: a, Flows: flows, Deadline: view.deadline(now)})
			}
			if err != nil {
				m.log.Warn("asked for connections", "by", taker, "service", a.Service, "epoch", a.Epoch, "err", err)
			}
			return actions
		})
	})
	return nil
}

// find are the connections here of a taker's users, or the one.
func (m *Mover) find(view View, taker string, one *handover.Flow) ([]handover.Flow, error) {
	ctx, cancel := context.WithTimeout(m.ctx, findLimit)
	defer cancel()
	var flows []handover.Flow
	for _, end := range view.Ends() {
		if !m.cfg.Apps.Serves(end) || one != nil && one.Local != end {
			continue
		}
		users, err := m.cfg.Connected(ctx, []netip.Addr{end.Addr()}, []dataplane.Port{{Proto: "tcp", Number: end.Port()}})
		if err != nil {
			return nil, err
		}
		for _, user := range users {
			if view.owner(user) == taker && (one == nil || one.Remote == user) {
				flows = append(flows, handover.Flow{Local: end, Remote: user})
			}
		}
	}
	return flows, nil
}

// findLimit bounds one look at the socket table.
const findLimit = 2 * time.Second

// say is said on the control channel. What cannot be is as a message lost.
func (m *Mover) say(w handover.Word) {
	k := control.KindVerdict
	switch w.(type) {
	case handover.Ask:
		k = control.KindAsk
	case handover.Query:
		k = control.KindQuery
	}
	if err := m.cfg.Channel.Send(k, handover.EncodeWord(w)); err != nil {
		m.log.Warn("not said on the control channel", "kind", k, "err", err)
	}
}
