package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"path/filepath"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/lbd/internal/agent"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/config"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/director"
	"github.com/manycast/manycast/lbd/internal/health"
	"github.com/manycast/manycast/lbd/internal/joiner"
	"github.com/manycast/manycast/lbd/internal/leader"
	"github.com/manycast/manycast/lbd/internal/metrics"
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
	if err := daemon.Require(directorNeeds...); err != nil {
		return err
	}
	b, err := newBase("director", cfg.Name, cfg.StateDir, cfg.Services, cfg.Log, cfg.Bus, stderr)
	if err != nil {
		return err
	}
	defer b.close()
	plane, err := dataplane.OpenDirector(dataplane.DirectorConfig{
		Interfaces: cfg.Interfaces, Bpffs: cfg.BPFFS, FragmentsMax: cfg.FragmentsMax, Log: b.log,
	})
	if err != nil {
		return err
	}
	services := b.services(ctx, filepath.Join(cfg.StateDir, servicesCache))
	tasks := []daemon.Task{director.New(director.Config{Services: services, Plane: plane, Keep: keep, Log: b.log})}
	if b.conn != nil && cfg.Leader.Enabled {
		l, err := newLeader(ctx, cfg.Leader, cfg.Name, cfg.StateDir, announce.NewBus(b.conn, b.log), b)
		if err != nil {
			return errors.Join(err, plane.Close(true))
		}
		tasks = append(tasks, l)
	}
	tasks, err = withMetrics(tasks, cfg.Metrics.Listen, metrics.NewCounters("director", plane.Counters))
	if err != nil {
		return errors.Join(err, plane.Close(true))
	}
	return daemon.Run(ctx, b.log, tasks...)
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
	link, err := agent.FindLink(cfg.Interface, cfg.Address)
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
	plane, err := dataplane.OpenAgent(dataplane.AgentConfig{
		Interface: cfg.Interface, Bpffs: cfg.BPFFS, VIPDevice: cfg.VIPDevice, PathMTU: cfg.PathMTU, Hold: cfg.Hold, Log: b.log,
	})
	if err != nil {
		return err
	}
	c := agent.Config{
		Name: cfg.Name, Address: link.Address, Link: link.Prefix, Weight: cfg.Weight, Serve: cfg.Serve, StateDir: cfg.StateDir, Settle: cfg.Settle, Keep: keep,
		Services: b.services(ctx, filepath.Join(cfg.StateDir, servicesCache)),
		Plane:    plane, Joiner: joins, Close: dataplane.CloseConnections, Health: checker.Run, Log: b.log,
	}
	var keys store.Bucket
	if b.conn != nil {
		buckets := store.OnBus(b.conn)
		c.Buckets, c.Announcer, keys = &buckets, announce.NewBus(b.conn, b.log), buckets.Keys
	}
	var tasks []daemon.Task
	if !cfg.Keys.Unsigned {
		k := agent.NewKeys(cfg.Keys.Dir, cfg.Keys.Member, keys, ring, b.log)
		c.HasKey, c.KeysRead = ring.Has, k.Ready()
		tasks = append(tasks, k)
	}
	tasks = append(tasks, agent.NewLoop(c))
	if cfg.Leader.Enabled {
		l, err := newLeader(ctx, cfg.Leader, cfg.Name, cfg.StateDir, c.Announcer, b)
		if err != nil {
			return errors.Join(err, plane.Close(true))
		}
		tasks = append(tasks, l)
	}
	tasks, err = withMetrics(tasks, cfg.Metrics.Listen, metrics.NewCounters("agent", plane.Counters))
	if err != nil {
		return errors.Join(err, plane.Close(true))
	}
	return daemon.Run(ctx, b.log, tasks...)
}

// newLeader competes for the lease beside a director or an agent.
func newLeader(ctx context.Context, cfg config.Leader, name, stateDir string, a announce.Announcer, b *base) (*leader.Loop, error) {
	return leader.NewLoop(leader.Config{
		Name: name, StateDir: stateDir, Timing: leader.Timing{DeadAfter: cfg.DeadAfter, PrepareTimeout: cfg.PrepareTimeout},
		Buckets: store.OnBus(b.conn), Announcer: a, Services: b.services(ctx, ""), Log: b.log,
	})
}

func newJoiner(cfg config.Agent, link agent.Link, ring *joiner.Keyring, keep bool, b *base) (*joiner.Loop, error) {
	j, err := joiner.New(joiner.Config{
		Requester: link.Address, Link: link.Prefix, MTU: link.MTU,
		Refresh: cfg.Join.Refresh, Resend: cfg.Join.Resend, Robustness: cfg.Join.Robustness, Unsigned: cfg.Keys.Unsigned,
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
