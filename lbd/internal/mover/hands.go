package mover

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/handover"
)

// Gates is what a Mover uses of dataplane.Forwarder.
type Gates interface {
	Arm(flows []dataplane.Flow) error
	Hold(flows []dataplane.Flow) error
	Pass(flows []dataplane.Flow, to netip.Addr) error
	Release(flows []dataplane.Flow) error
	Abandon(flows []dataplane.Flow) error
	Knows(flow dataplane.Flow) (bool, error)
}

// passFor is how long packets of a connection that was given away are sent on: those that were on their way here.
const passFor = time.Second

// event is what the loop is to hear of; the machine's actions come out.
type event func(now time.Time) []handover.Action

// hands do what the machines say: of each flow one thing after the other, of different flows side by side.
type hands struct {
	ctx     context.Context //nolint:containedctx // of all that waits for applications: it ends with the loop
	apps    apps.Apps
	sockets Sockets
	gates   Gates
	tell    func(event)
	log     *slog.Logger

	work sync.WaitGroup
	mu   sync.Mutex
	todo map[handover.Flow][]func() // behind what is being done; a flow that is in it has a goroutine
	held map[handover.ID]*connection
	gate map[handover.Flow]handover.ID // whose the gate is
	here map[handover.ID]bool          // those that live here, and whose gate is yet to be opened
}

// connection is one on its way. It belongs to its flow's order, but for stop.
type connection struct {
	stop     context.CancelFunc // ends what waits for an application
	waiting  context.Context    //nolint:containedctx // the same
	exported apps.Exported
	imported apps.Imported
	socket   Socket
}

func newHands(ctx context.Context, a apps.Apps, s Sockets, g Gates, tell func(event), log *slog.Logger) *hands {
	return &hands{
		ctx: ctx, apps: a, sockets: s, gates: g, tell: tell, log: log,
		todo: map[handover.Flow][]func(){}, held: map[handover.ID]*connection{}, gate: map[handover.Flow]handover.ID{}, here: map[handover.ID]bool{},
	}
}

// do has something done when all that was to be done of the flow before is.
func (h *hands) do(f handover.Flow, what func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if waiting, busy := h.todo[f]; busy {
		h.todo[f] = append(waiting, what)
		return
	}
	h.todo[f] = nil
	h.work.Go(func() { h.run(f, what) })
}

func (h *hands) run(f handover.Flow, what func()) {
	for {
		what()
		h.mu.Lock()
		waiting := h.todo[f]
		if len(waiting) == 0 {
			delete(h.todo, f)
			h.mu.Unlock()
			return
		}
		what, h.todo[f] = waiting[0], waiting[1:]
		h.mu.Unlock()
	}
}

// of is what there is of a transfer.
func (h *hands) of(id handover.ID) *connection {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.held[id]
	if c == nil {
		c = &connection{}
		c.waiting, c.stop = context.WithCancel(h.ctx)
		h.held[id] = c
	}
	return c
}

// end forgets a transfer.
func (h *hands) end(id handover.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.held[id]; c != nil {
		c.stop()
		delete(h.held, id)
	}
}

// live ends a transfer whose connection lives here.
func (h *hands) live(id handover.ID) {
	h.end(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.here[id] = true
}

// isLive tells so, once.
func (h *hands) isLive(id handover.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	is := h.here[id]
	delete(h.here, id)
	return is
}

// stop ends what waits for an application, so that what undoes it has not to wait.
func (h *hands) stop(id handover.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.held[id]; c != nil {
		c.stop()
	}
}

// settle ends what is held when nobody works any more; sent are those whose state is elsewhere.
func (h *hands) settle(sent map[handover.ID]bool) {
	for id, c := range h.held {
		c.stop()
		switch {
		case c.imported != nil:
			c.end(h)
			c.imported.Cancel()
		case c.exported == nil || sent[id]:
			c.end(h)
			if c.exported != nil {
				c.exported.Gone()
			}
		default:
			if c.socket != nil {
				h.note("connection not thawed: it is lost", c.socket.Thaw())
			}
			c.end(h)
			c.exported.Back()
		}
	}
}

// end closes what there is of the socket.
func (c *connection) end(h *hands) {
	switch {
	case c.socket != nil:
		h.note("descriptor", c.socket.Close())
	case c.exported != nil:
		h.note("descriptor", h.sockets.Drop(c.exported.FD()))
	}
}

func (h *hands) note(what string, err error) {
	if err != nil {
		h.log.Warn(what, "err", err)
	}
}

// failed tells what went wrong with a connection: somebody may have died in between, and nothing more can be done here.
func (h *hands) failed(what string, f handover.Flow, err error) {
	if err != nil {
		h.log.Warn(what, "connection", f, "err", err)
	}
}

func plain(f handover.Flow) dataplane.Flow { return dataplane.Flow{User: f.Remote, VIP: f.Local} }

// shut sets the gate, and notes whose it is.
func (h *hands) shut(t handover.Transfer, set func([]dataplane.Flow) error) {
	h.mu.Lock()
	h.gate[t.Flow] = t.ID
	h.mu.Unlock()
	h.failed("gate not shut: packets may meet a connection that moves", t.Flow, set([]dataplane.Flow{plain(t.Flow)}))
}

// open opens the gate by one of Gates' ways, unless it is another transfer's by now.
func (h *hands) open(t handover.Transfer, way func([]dataplane.Flow) error) {
	h.mu.Lock()
	mine := h.gate[t.Flow] == t.ID
	if mine {
		delete(h.gate, t.Flow)
	}
	h.mu.Unlock()
	if mine {
		h.failed("gate not opened", t.Flow, way([]dataplane.Flow{plain(t.Flow)}))
	}
}
