package main

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/lbd/internal/agent"
	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/internal/config"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/handover/peer"
	"github.com/manycast/manycast/lbd/internal/mover"
	"github.com/manycast/manycast/lbd/internal/stray"
)

// handing are the tasks that hand connections over, and look for those whose server is not known; zero where there is no control channel, by
// which servers speak of them.
type handing struct {
	mover  *mover.Mover // nil: connections do not move
	apps   *apps.Server
	strays *stray.Loop // nil: no packets are forwarded
}

func newHanding(cfg config.Agent, link agent.Link, plane dataplane.AgentPlane, c *channel.Channel, b *base) (h handing, err error) {
	if c == nil {
		return handing{}, nil
	}
	if cfg.Handover.Forward != 0 {
		h.strays = stray.New(stray.Config{Name: cfg.Name, Channel: c, Plane: plane, Log: b.log})
	}
	if cfg.Handover.Port == 0 || cfg.Handover.Socket == "" {
		return h, nil
	}
	address := net.JoinHostPort(link.Address.String(), strconv.Itoa(int(cfg.Handover.Port)))
	network := mover.TLS{
		Config: peer.Config{Identity: c.Identity(), Authority: c.Authority(), Boot: c.Boot()},
		Refused: func(from netip.AddrPort, err error) {
			b.log.Warn("link for connections is refused", "from", from, "err", err)
		},
	}
	if network.Listener, err = peer.Listen(address, network.Config); err != nil {
		return handing{}, err
	}
	h.apps = apps.NewServer(cfg.Handover.Socket, apps.DefaultLimits(), b.log)
	h.mover = mover.New(mover.Config{
		Name: cfg.Name, Boot: c.Boot(), Address: address, Channel: c, Network: network, Apps: h.apps, Sockets: mover.Kernel{}, Gates: plane,
		Connected: dataplane.ConnectedUsers, Log: b.log,
	})
	return h, nil
}

// Set tells them what the agent executes.
func (h handing) Set(all []mover.View) {
	if h.mover != nil {
		h.mover.Set(all)
	}
	if h.strays != nil {
		h.strays.Set(all)
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
	return task
}
