package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"path/filepath"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/groupkeys"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/lbd/internal/agent"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/binder"
	"github.com/manycast/manycast/lbd/internal/config"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/director"
	"github.com/manycast/manycast/lbd/internal/dyntcp/servicekey"
	"github.com/manycast/manycast/lbd/internal/health"
	"github.com/manycast/manycast/lbd/internal/joiner"
	"github.com/manycast/manycast/lbd/internal/leader"
	"github.com/manycast/manycast/lbd/internal/load"
	"github.com/manycast/manycast/lbd/internal/metrics"
	"github.com/manycast/manycast/lbd/internal/pins"
	"github.com/manycast/manycast/lbd/internal/store"
)

var (
	directorNeeds = []daemon.Need{
		{Capability: daemon.NetAdmin, To: "attach programs to interfaces"},
		{Capability: daemon.BPF, To: "load them"},
	}
	agentNeeds = []daemon.Need{
		{Capability: daemon.NetAdmin, To: "attach programs to interfaces, add VIPs, set ARP's sysctls and close connections"},
		{Capability: daemon.NetRaw, To: "send joins and hear queries"},
		{Capability: daemon.BPF, To: "load programs"},
	}
)

// servicesCache is the file in a state directory that keeps the bus' services.
const servicesCache = "services.yaml"

func runDirector(ctx context.Context, cfg config.Director, keep bool, stderr io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := daemon.Require(withControl(directorNeeds, cfg.Control)...); err != nil {
		return err
	}
	b, err := newBase("director", cfg.Name, cfg.StateDir, cfg.Services, cfg.Log, cfg.Bus, stderr)
	if err != nil {
		return err
	}
	defer b.close()
	c, err := b.openControl(cfg.Control, cfg.Name, control.Director, nil)
	if err != nil {
		return err
	}
	plane, err := dataplane.OpenDirector(dataplane.DirectorConfig{
		Interfaces: cfg.Interfaces, Bpffs: cfg.BPFFS, FragmentsMax: cfg.FragmentsMax, Log: b.log,
	})
	if err != nil {
		return err
	}
	tasks, err := directorTasks(ctx, cfg, keep, plane, c, b)
	if err != nil {
		return errors.Join(err, plane.Close(true))
	}
	return daemon.Run(ctx, b.log, tasks...)
}

func directorTasks(ctx context.Context, cfg config.Director, keep bool, plane dataplane.DirectorPlane, c *channel.Channel, b *base) ([]daemon.Task, error) {
	d := director.Config{Services: b.services(ctx, filepath.Join(cfg.StateDir, servicesCache)), Plane: plane, Keep: keep, Log: b.log}
	var tasks []daemon.Task
	if c != nil {
		tasks = append(tasks, c, groupkeys.New(cfg.Keys.Dir, cfg.Keys.Member, b.keys(), c.SetKeys, b.log))
	}
	if c != nil && b.conn != nil {
		d.Channel, d.Allocations, d.StateDir = c, store.OnBus(b.conn).Allocations, cfg.StateDir
	}
	tasks = append(append(tasks, director.New(d)), b.answers(c)...)
	if b.conn != nil && cfg.Leader.Enabled {
		l, err := newLeader(ctx, cfg.Leader, cfg.Name, "", cfg.StateDir, b.announcer(c), c, b)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, l)
	}
	collect := collectors(metrics.NewCounters("director", plane.Counters), c)
	if len(cfg.Tags.Routers) > 0 {
		buckets := store.OnBus(b.conn)
		told := binder.New(binder.Config{
			Name: cfg.Name, Routers: cfg.Tags.Routers, Lifetime: cfg.Tags.Lifetime, Hold: cfg.Tags.Hold,
			Services: b.services(ctx, ""), Allocations: buckets.Allocations, Pins: buckets.Pins, Answers: pins.OnBus(b.conn),
			Router: binder.OnBus(b.conn), Log: b.log,
		})
		tasks, collect = append(tasks, told), append(collect, told)
	}
	return withMetrics(tasks, cfg.Metrics.Listen, collect...)
}

func runAgent(ctx context.Context, cfg config.Agent, keep bool, stderr io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := daemon.Require(agentNeeds...); err != nil {
		return err
	}
	b, err := newBase("agent", cfg.Name, cfg.StateDir, cfg.Services, cfg.Log, cfg.Bus, stderr)
	if err != nil {
		return err
	}
	defer b.close()
	link, err := agent.FindLink(cfg.Interface, cfg.Address, cfg.Address6)
	if err != nil {
		return err
	}
	checker, err := health.New(cfg.Health)
	if err != nil {
		return err
	}
	ring := &joiner.Keyring{}
	joins, err := newJoiner(cfg, link, ring, keep, b)
	if err != nil {
		return err
	}
	known := channel.KnownIn(cfg.StateDir, b.log)
	ch, err := b.openControl(cfg.Control, cfg.Name, control.Server, known.Load())
	if err != nil {
		return err
	}
	plane, err := dataplane.OpenAgent(dataplane.AgentConfig{
		Interface: cfg.Interface, Bpffs: cfg.BPFFS, VIPDevice: cfg.VIPDevice, PathMTU: cfg.PathMTU, Hold: hold(cfg), Log: b.log,
		Forward: dataplane.Forward{Port: cfg.Handover.Forward, Address: link.Address},
	})
	if err != nil {
		return err
	}
	tasks, err := agentTasks(ctx, cfg, keep, link, plane, ring, joins, checker, ch, b)
	if err != nil {
		return errors.Join(err, plane.Close(true))
	}
	if ch != nil {
		tasks = append(tasks, known.Keep(ch.Known))
	}
	return daemon.Run(ctx, b.log, tasks...)
}

func agentTasks(ctx context.Context, cfg config.Agent, keep bool, link agent.Link, plane dataplane.AgentPlane, ring *joiner.Keyring,
	joins *joiner.Loop, checker *health.Checker, ch *channel.Channel, b *base,
) ([]daemon.Task, error) {
	c := agent.Config{
		Name: cfg.Name, Address: link.Address, Link: link.Prefix, Weight: cfg.Weight, Serve: cfg.Serve, StateDir: cfg.StateDir, Settle: cfg.Settle, Keep: keep,
		Services: b.services(ctx, filepath.Join(cfg.StateDir, servicesCache)),
		Plane:    plane, Joiner: joins, Close: dataplane.EndConnections, Health: checker.Run, Announcer: b.announcer(ch), Log: b.log,
	}
	if b.conn != nil {
		buckets := store.OnBus(b.conn)
		c.Buckets, c.Answers, c.Connected = &buckets, pins.OnBus(b.conn), dataplane.ConnectedUsers
	}
	measuring := newLoad(cfg, plane, ch, b)
	c.Measure = measuring.Measure
	var tasks []daemon.Task
	keys := &servicekey.Ring{}
	if !cfg.Keys.Unsigned {
		k := groupkeys.New(cfg.Keys.Dir, cfg.Keys.Member, b.keys(), func(groups []keyfile.Group) {
			ring.SetGroups(groups)
			keys.Set(groups)
			if ch != nil {
				ch.SetKeys(groups)
			}
		}, b.log)
		c.HasKey, c.KeysRead = ring.Has, k.Ready()
		tasks = append(tasks, k)
	}
	dynamic, err := newDynamic(cfg, link, plane, keys, keep, b)
	if err != nil {
		return nil, err
	}
	h, err := newHanding(cfg, link, plane, ch, dynamic, b)
	if err != nil {
		return nil, err
	}
	c.Mover, c.Leaves = h, dynamic.Leaves
	if ch != nil {
		c.Channel, c.Pause = ch, ch.Pause
	}
	loop := agent.NewLoop(c)
	h.count(loop)
	if ch != nil {
		ch.OnBeat(loop.Beat)
		ch.SpeakWhile(loop.Alive)
		tasks = append(tasks, daemon.Beneath(ch, h.beneath(loop))) // the loop's last word is said on the channel
	} else {
		tasks = append(tasks, h.beneath(loop))
	}
	if cfg.Leader.Enabled {
		l, err := newLeader(ctx, cfg.Leader, cfg.Name, cfg.Name, cfg.StateDir, c.Announcer, ch, b)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, l)
	}
	tasks = append(tasks, b.answers(ch)...)
	shown := append(collectors(metrics.NewCounters("agent", plane.Counters), ch), h.collectors()...)
	return withMetrics(tasks, cfg.Metrics.Listen, append(shown, measuring, loop)...)
}

// newLoad measures what the server has to do.
func newLoad(cfg config.Agent, plane dataplane.AgentPlane, c *channel.Channel, b *base) *load.Task {
	s := load.Sources{Plane: plane, Sockets: dataplane.CountSockets, Users: dataplane.ConnectedUsers, Machine: load.NewMachine("/").Read}
	if c != nil {
		s.Channel = c
	}
	return load.NewTask(cfg.Load, cfg.Name, s, b.log)
}

// newLeader competes for the lease beside a director or an agent, whose server is the one of that name.
func newLeader(ctx context.Context, cfg config.Leader, name, server, stateDir string, a announce.Announcer, c *channel.Channel, b *base) (*leader.Loop, error) {
	l := leader.Config{
		Name: name, Server: server, StateDir: stateDir, Timing: leader.Timing{DeadAfter: cfg.DeadAfter, PrepareTimeout: cfg.PrepareTimeout, Dampen: cfg.Dampen},
		Buckets: store.OnBus(b.conn), Announcer: a, Services: b.services(ctx, ""), Log: b.log,
	}
	if c != nil {
		l.Channel = c
	}
	return leader.NewLoop(l)
}

func newJoiner(cfg config.Agent, link agent.Link, ring *joiner.Keyring, keep bool, b *base) (*joiner.Loop, error) {
	j, err := joiner.New(joiner.Config{
		Requester: link.Address, Link: link.Prefix, MTU: link.MTU,
		Refresh: cfg.Join.Refresh, Resend: cfg.Join.Resend, Robustness: cfg.Join.Robustness, Unsigned: cfg.Keys.Unsigned, Standing: standing(cfg.Control),
	}, ring, rand.Reader)
	if err != nil {
		return nil, err
	}
	socket, err := joiner.Open(cfg.Interface, link.Address)
	if err != nil {
		return nil, err
	}
	return joiner.NewLoop(j, socket, keep, b.log), nil
}
