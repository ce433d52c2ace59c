package main

import (
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/control/members"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/groupkeys"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/config"
	"github.com/manycast/manycast/lbd/internal/store"
)

// withControl adds what a control channel needs.
func withControl(needs []daemon.Need, cfg control.Config) []daemon.Need {
	if !cfg.Enabled() {
		return needs
	}
	return append(slices.Clip(needs), daemon.Need{Capability: daemon.NetRaw, To: "hear the control channel"})
}

// openControl makes the process' control channel; nil where there is none. known are its members as of an earlier run.
func (b *base) openControl(cfg control.Config, name string, role control.Role, known []members.Known) (*channel.Channel, error) {
	if !cfg.Enabled() {
		return nil, nil //nolint:nilnil // no channel is no error
	}
	return channel.Open(cfg, name, role, known, b.log)
}

// announcer is where reallocations are spoken of: the control channel, or the bus where there is none; nil without both.
func (b *base) announcer(c *channel.Channel) announce.Announcer {
	switch {
	case b.conn == nil:
		return nil
	case c != nil:
		return announce.NewControl(c, b.log)
	}
	return announce.NewBus(b.conn, b.log)
}

// keys is the bus' bucket of sealed group keys; nil without a bus.
func (b *base) keys() groupkeys.Watcher {
	if b.conn == nil {
		return nil
	}
	return store.OnBus(b.conn).Keys
}

// hold is how long users are taken without a sign of life of the agent: less than others wait for one.
func hold(cfg config.Agent) time.Duration {
	if !cfg.Control.Enabled() {
		return cfg.Hold
	}
	return cfg.Control.DeadAfter - cfg.Control.Heartbeat
}

// standing are the groups that an agent joins for their frames.
func standing(cfg control.Config) []netip.Addr {
	if !cfg.Enabled() {
		return nil
	}
	return []netip.Addr{cfg.GroupAddr()}
}

// collectors are what metrics show.
func collectors(plane prometheus.Collector, c *channel.Channel) []prometheus.Collector {
	if c == nil {
		return []prometheus.Collector{plane}
	}
	return []prometheus.Collector{plane, c}
}

// answers are the tasks that tell on the bus whom the channel hears.
func (b *base) answers(c *channel.Channel) []daemon.Task {
	if c == nil || b.conn == nil {
		return nil
	}
	return []daemon.Task{c.Answer(b.conn, "lbd")}
}
