package mover

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/handover"
)

// What the giver has done to a connection.

func (h *hands) export(t handover.Transfer, heard func(now time.Time, app []byte, err error) []handover.Action) {
	c := h.of(t.ID)
	h.do(t.Flow, func() {
		exported, err := h.apps.Export(c.waiting, apps.Flow{Local: t.Flow.Local, Remote: t.Flow.Remote})
		var app []byte
		if err == nil {
			c.exported, app = exported, exported.App()
		} else {
			h.end(t.ID) // nothing is to be undone
		}
		h.tell(func(now time.Time) []handover.Action { return heard(now, app, err) })
	})
}

func (h *hands) giveBack(t handover.Transfer) {
	h.stop(t.ID)
	h.do(t.Flow, func() {
		c := h.of(t.ID)
		if c.exported != nil && c.socket == nil {
			h.failed("descriptor", t.Flow, h.sockets.Drop(c.exported.FD()))
		}
		if c.exported != nil {
			c.exported.Back()
		}
		h.end(t.ID)
	})
}

func (h *hands) pass(t handover.Transfer, to netip.Addr) {
	h.do(t.Flow, func() {
		h.shut(t, func(flows []dataplane.Flow) error { return h.gates.Pass(flows, to) })
	})
}

func (h *hands) unpass(t handover.Transfer) { h.do(t.Flow, func() { h.open(t, h.gates.Release) }) }

func (h *hands) freeze(t handover.Transfer, heard func(now time.Time, state []byte, err error) []handover.Action) {
	h.do(t.Flow, func() {
		var state []byte
		c, err := h.of(t.ID), notYet("freeze")
		if c.exported != nil {
			c.socket, state, err = h.sockets.Freeze(c.exported.FD())
		}
		h.tell(func(now time.Time) []handover.Action { return heard(now, state, err) })
	})
}

func (h *hands) thaw(t handover.Transfer) {
	h.do(t.Flow, func() {
		if c := h.of(t.ID); c.socket != nil {
			h.failed("connection not thawed: it is lost", t.Flow, c.socket.Thaw())
			h.failed("descriptor", t.Flow, c.socket.Close())
		}
	})
}

// close ends the connection here without a word. What is still on its way here goes on to who has it now, for a while.
func (h *hands) close(t handover.Transfer) {
	h.do(t.Flow, func() {
		c := h.of(t.ID)
		if c.socket != nil {
			h.failed("connection that was given away", t.Flow, c.socket.Close())
		}
		if c.exported != nil {
			c.exported.Gone()
		}
		h.end(t.ID)
	})
	time.AfterFunc(passFor, func() {
		if h.ctx.Err() == nil {
			h.open(t, h.gates.Release)
		}
	})
}
