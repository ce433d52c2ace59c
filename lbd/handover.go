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
)

// handing are the tasks that hand connections over; zero where there is no control channel, by which servers ask for them.
type handing struct {
	mover *mover.Mover
	apps  *apps.Server
}

func newHanding(cfg config.Agent, link agent.Link, plane dataplane.AgentPlane, c *channel.Channel, b *base) (handing, error) {
	if c == nil || cfg.Handover.Port == 0 || cfg.Handover.Socket == "" {
		return handing{}, nil
	}
	address := net.JoinHostPort(link.Address.String(), strconv.Itoa(int(cfg.Handover.Port)))
	network := mover.TLS{
		Config: peer.Config{Identity: c.Identity(), Authority: c.Authority(), Boot: c.Boot()},
		Refused: func(from netip.AddrPort, err error) {
			b.log.Warn("link for connections is refused", "from", from, "err", err)
		},
	}
	var err error
	if network.Listener, err = peer.Listen(address, network.Config); err != nil {
		return handing{}, err
	}
	a := apps.NewServer(cfg.Handover.Socket, apps.DefaultLimits(), b.log)
	m := mover.New(mover.Config{
		Name: cfg.Name, Boot: c.Boot(), Address: address, Channel: c, Network: network, Apps: a, Sockets: mover.Kernel{}, Gates: plane,
		Connected: dataplane.ConnectedUsers, Log: b.log,
	})
	return handing{m, a}, nil
}

// beneath runs them beneath a task, so that they do what it says at its end.
func (h handing) beneath(task daemon.Task) daemon.Task {
	if h.mover == nil {
		return task
	}
	return daemon.Beneath(h.apps, daemon.Beneath(h.mover, task))
}
