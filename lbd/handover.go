package main

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/lbd/internal/agent"
	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/internal/config"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/dyntcp/serving"
	"github.com/manycast/manycast/lbd/internal/flows"
	"github.com/manycast/manycast/lbd/internal/handover/peer"
	"github.com/manycast/manycast/lbd/internal/mover"
	"github.com/manycast/manycast/lbd/internal/stray"
)

// handing are the tasks that hand connections over, look for those whose server is not known, and tell of them. Without a control channel, by
// which servers speak of them, there is the last alone.
type handing struct {
	dynamic *serving.Loop
	mover   *mover.Mover // nil: connections do not move
	apps    *apps.Server
	strays  *stray.Loop // nil: no packets are forwarded
	flows   *flows.Task // nil: there is no bus
}

func newHanding(cfg config.Agent, link agent.Link, plane dataplane.AgentPlane, c *channel.Channel, dynamic *serving.Loop, b *base) (h handing, err error) {
	h.dynamic = dynamic
	if c != nil && cfg.Handover.Forward != 0 {
		h.strays = stray.New(stray.Config{Name: cfg.Name, Channel: c, Plane: plane, Log: b.log})
	}
	if c != nil && cfg.Handover.Port != 0 && cfg.Handover.Socket != "" {
		if err := h.openMover(cfg, link, plane, c, b); err != nil {
			return handing{}, err
		}
	}
	if b.conn != nil {
		f := flows.Config{Name: cfg.Name, Bus: b.conn, Connected: dataplane.ConnectedUsers, Totals: []func() []flows.Counter{h.forwarded(plane)}}
		if h.mover != nil {
			f.Mover = h.mover
		}
		h.flows = flows.New(f)
	}
	return h, nil
}

func (h *handing) openMover(cfg config.Agent, link agent.Link, plane dataplane.AgentPlane, c *channel.Channel, b *base) (err error) {
	address := net.JoinHostPort(link.Address.String(), strconv.Itoa(int(cfg.Handover.Port)))
	network := mover.TLS{
		Config: peer.Config{Identity: c.Identity(), Authority: c.Authority(), Boot: c.Boot()},
		Refused: func(from netip.AddrPort, err error) {
			b.log.Warn("link for connections is refused", "from", from, "err", err)
		},
	}
	if network.Listener, err = peer.Listen(address, network.Config); err != nil {
		return err
	}
	h.apps = apps.NewServer(cfg.Handover.Socket, apps.DefaultLimits(), b.log)
	h.mover = mover.New(mover.Config{
		Name: cfg.Name, Boot: c.Boot(), Address: address, Channel: c, Network: network, Apps: h.apps, Sockets: h.dynamic.Sockets(mover.Kernel{}), Gates: plane,
		Connected: dataplane.ConnectedUsers, Log: b.log,
	})
	return nil
}

// forwarded are the totals of what is forwarded, and of whose server was looked for.
func (h *handing) forwarded(plane dataplane.AgentPlane) func() []flows.Counter {
	return func() (out []flows.Counter) {
		add := func(strategy, name string, n uint64) {
			out = append(out, flows.Counter{Strategy: strategy, Name: name, Value: n})
		}
		if c, err := plane.Counters(); err == nil {
			for _, f := range []struct {
				name string
				n    uint64
			}{
				{"out", c.ForwardedOut}, {"on", c.ForwardedOn}, {"in", c.ForwardedIn}, {"returned", c.ForwardReturned}, {"ended", c.ForwardEnded},
				{"failed", c.ForwardFailed}, {"not_peer", c.NotPeer}, {"hops_spent", c.HopsSpent}, {"strays", c.Strays}, {"strays_lost", c.StraysLost},
			} {
				add("forward", f.name, f.n)
			}
			add("transfer", "packets_held", c.Held)
			add("transfer", "packets_held_lost", c.HeldLost)
			add("transfer", "packets_passed", c.Passed)
		}
		if h.strays != nil {
			c := h.strays.Counters()
			for name, n := range c.Asker() {
				add("forward", "unknown_owner_"+name, n)
			}
			for name, n := range c.Answers() {
				add("forward", "for_others_"+name, n)
			}
		}
		return out
	}
}

// count has the agent's own totals shown: of what is reset, and pinned.
func (h *handing) count(l *agent.Loop) {
	if h.flows == nil {
		return
	}
	h.flows.Count(func() (out []flows.Counter) {
		for why, n := range l.Ended() {
			out = append(out, flows.Counter{Strategy: "reset", Name: "closed", Reason: why, Value: n})
		}
		held, late := l.Pinned()
		return append(out, flows.Counter{Strategy: "pin", Name: "prepared", Reason: "held", Value: held}, flows.Counter{Strategy: "pin", Name: "prepared", Reason: "late", Value: late})
	})
}

// Set tells them what the agent executes.
func (h handing) Set(all []mover.View) {
	h.dynamic.Set(servicesOf(all))
	if h.mover != nil {
		h.mover.Set(all)
	}
	if h.strays != nil {
		h.strays.Set(all)
	}
	if h.flows != nil {
		h.flows.Set(all)
	}
}

// beneath runs them beneath a task, so that they do what it says at its end.
func (h handing) beneath(task daemon.Task) daemon.Task {
	if h.strays != nil {
		task = daemon.Beneath(h.strays, task)
	}
	if h.mover != nil {
		task = daemon.Beneath(h.apps, daemon.Beneath(h.mover, task))
	}
	if h.flows != nil {
		task = daemon.Beneath(h.flows, task)
	}
	return daemon.Beneath(h.dynamic, task)
}

// collectors are what metrics show of them.
func (h handing) collectors() (out []prometheus.Collector) {
	out = append(out, h.dynamic)
	if h.mover != nil {
		out = append(out, h.mover)
	}
	if h.strays != nil {
		out = append(out, h.strays)
	}
	return out
}
