package mover

import (
	"time"

	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/internal/handover"
)

// What the taker has done to a connection.

// hold keeps what the giver sends on once it has frozen the connection. Until its state is here packets go to the giver: nobody waits.
func (h *hands) hold(t handover.Transfer) {
	h.do(t.Flow, func() { h.shut(t, h.gates.Arm) })
}

// release lets packets in. Where the connection did not come to live here the giver has to hear first that it is to keep it: until then it sends back
// what goes to it.
func (h *hands) release(t handover.Transfer) {
	h.do(t.Flow, func() {
		if h.isLive(t.ID) {
			h.open(t, h.gates.Release)
			return
		}
		h.end(t.ID)
		time.AfterFunc(giverHears, func() { h.open(t, h.gates.Abandon) })
	})
}

// giverHears is how long packets wait for the giver of a connection that was not taken.
const giverHears = 200 * time.Millisecond

func (h *hands) restore(t handover.Transfer, state []byte, heard func(now time.Time, id handover.ID, err error) []handover.Action) {
	c := h.of(t.ID)
	h.do(t.Flow, func() {
		h.shut(t, h.gates.Hold)
		var err error
		c.socket, err = h.sockets.Restore(t.Flow.Local, t.Flow.Remote, state)
		h.tell(func(now time.Time) []handover.Action { return heard(now, t.ID, err) })
	})
}

func (h *hands) imports(t handover.Transfer, app []byte, heard func(now time.Time, id handover.ID, err error) []handover.Action) {
	h.do(t.Flow, func() {
		c, err := h.of(t.ID), notYet("import")
		if c.socket != nil {
			c.imported, err = h.apps.Import(c.waiting, apps.Flow{Local: t.Flow.Local, Remote: t.Flow.Remote}, c.socket.FD(), app)
		}
		h.tell(func(now time.Time) []handover.Action { return heard(now, t.ID, err) })
	})
}

func (h *hands) goLive(t handover.Transfer, heard func(now time.Time, id handover.ID, err error) []handover.Action) {
	h.do(t.Flow, func() {
		c, err := h.of(t.ID), notYet("thaw")
		if c.socket != nil && c.imported != nil {
			err = c.socket.Thaw()
		}
		if err == nil {
			c.imported.Live()
			h.failed("descriptor", t.Flow, c.socket.Close())
			h.live(t.ID)
		}
		h.tell(func(now time.Time) []handover.Action { return heard(now, t.ID, err) })
	})
}

func (h *hands) discard(t handover.Transfer) {
	h.stop(t.ID)
	h.do(t.Flow, func() {
		c := h.of(t.ID)
		if c.socket != nil {
			h.failed("connection that is not taken", t.Flow, c.socket.Close())
		}
		if c.imported != nil {
			c.imported.Cancel()
		}
		h.end(t.ID)
	})
}
