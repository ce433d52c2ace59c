package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgp/beside"
	"github.com/manycast/manycast/tdpd/internal/bgp/bfd"
	"github.com/manycast/manycast/tdpd/internal/bgp/bfd/bfdd"
	"github.com/manycast/manycast/tdpd/internal/bgp/child"
	"github.com/manycast/manycast/tdpd/internal/bgp/gobgp"
	"github.com/manycast/manycast/tdpd/internal/bgp/sockets"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/byhand"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/edge"
	"github.com/manycast/manycast/tdpd/internal/routing"
	"github.com/manycast/manycast/tdpd/internal/service"
)

// openBGP opens the speaker and the loop beside it, which do nothing before their tasks run, and has the service speak with the loop; nil: this router does not speak BGP. A
// speaker of a configuration before is ended, without a word to its neighbors; a gobgpd or a bfdd of one before has to forget us.
func openBGP(o *service.Options, base bgp.Desired) (*edge.Peering, []daemon.Task, error) {
	cfg, log := o.Config, o.Log
	dir := cfg.SpeakerDir()
	if !cfg.BGP.Enabled() || cfg.BGP.API != "" {
		if err := child.Remove(dir); err != nil {
			return nil, nil, err
		}
	}
	if err := beside.Settle(context.Background(), filepath.Join(cfg.StateDir, "beside"), daemonsBeside(cfg.BGP), forget(log), log); err != nil {
		return nil, nil, err
	}
	if !cfg.BGP.Enabled() {
		return nil, nil, nil
	}
	p := &edge.Peering{
		Router: cfg.Name, Base: base, Where: cfg.BGP.API, Restarts: func() uint64 { return 0 }, File: filepath.Join(cfg.StateDir, "announced"),
	}
	var err error
	if p.Paths, err = byhand.Load(p.File); err != nil {
		return nil, nil, err
	}
	options := gobgp.Options{Target: cfg.BGP.API, Foreign: true, Hold: base.Restart.Time, Most: cfg.BGP.Most, Log: log}
	var own *child.Child
	if cfg.BGP.API == "" {
		own = child.New(child.Options{Args: []string{"speaker", "--log-level", cfg.Log.Level}, Dir: dir, Stderr: os.Stderr, Log: log})
		options.Target, options.Foreign, options.Restarted = own.Socket(), false, own.Restarted
		p.Where, p.Restarts = "own", own.Restarts
	}
	client, err := gobgp.New(options)
	if err != nil {
		return nil, nil, err
	}
	rules, err := cfg.BGP.FlowSpec.Config()
	if err != nil {
		return nil, nil, err
	}
	out, tasks := openBFD(cfg.BGP, log)
	loop := routing.New(routing.Options{
		Out: out, Underway: sockets.Underway,
		Speaker: client, Base: p.Paths.Into(base), VIPs: cfg.BGP.Announce.VIPs, Announcing: cfg.BGP.Announce.Announcing(), FlowSpec: rules, Log: log,
		Follow: bgppolicy.FollowConfig{ // the speaker's policies have been there before
			Import: bgppolicy.Policy{Rules: []bgppolicy.Rule{{}}, Martians: base.Martians}, Most: cfg.BGP.Most, Restart: base.Restart.Time, LongLived: base.Restart.LongLived,
		},
	})
	p.Speaker, p.Routing = client, loop
	o.Learned, o.Announcer, o.FlowRules = loop.Learned(), loop, rules.Most > 0
	o.Say = func(v routing.View) {
		if !cfg.BGP.Announce.Hosts {
			v.Hosts = nil
		}
		loop.Say(v)
	}
	tasks = append(tasks, daemon.Func("BGP", loop.Run)) // it is no part of being ready: neighbors may be away
	if own == nil {
		return p, append(tasks, daemon.Func("gobgpd", func(ctx context.Context) error { return leave(ctx, client, base, log) })), nil
	}
	own.Leave, own.Ask = client.Leave, client.Answers
	return p, append(tasks, own), nil
}

// daemonsBeside are those of others that a configuration tells something.
func daemonsBeside(cfg config.BGP) (all []beside.Place) {
	if cfg.Enabled() && cfg.API != "" {
		all = append(all, beside.Place{Kind: beside.Gobgpd, At: cfg.API})
	}
	if cfg.Enabled() && len(cfg.BFD()) > 0 {
		all = append(all, beside.Place{Kind: beside.BFDD, At: cfg.BFDD})
	}
	return all
}

// forget has one of them forget what it was told by a configuration before.
func forget(log *slog.Logger) func(context.Context, beside.Place) error {
	return func(ctx context.Context, p beside.Place) error {
		if p.Kind == beside.BFDD {
			return bfdd.New(p.At).Apply(ctx, nil)
		}
		client, err := gobgp.New(gobgp.Options{Target: p.At, Foreign: true, Log: log})
		if err != nil {
			return err
		}
		return errors.Join(client.Forget(ctx), client.Close())
	}
}

// openBFD has FRR's bfdd watch neighbors; nil: none is to be watched.
func openBFD(cfg config.BGP, log *slog.Logger) (<-chan []netip.Addr, []daemon.Task) {
	neighbors := cfg.BFD()
	if len(neighbors) == 0 {
		return nil, nil
	}
	l := bfd.NewLoop(bfdd.New(cfg.BFDD), neighbors, log)
	return l.Out(), []daemon.Task{daemon.Func("BFD", l.Run)}
}

// leaveWithin is how long a foreign speaker may take to forget what is ours.
const leaveWithin = 3 * time.Second

// leave waits for the end of ctx. Then a speaker that is somebody else's has nothing of ours any more, unless the daemon is restarted.
func leave(ctx context.Context, s bgp.Speaker, base bgp.Desired, log *slog.Logger) error {
	<-ctx.Done()
	if daemon.Keeps(ctx) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
	defer cancel()
	if err := s.Apply(ctx, bgp.Desired{AS: base.AS, RouterID: base.RouterID}); err != nil {
		log.Error("the BGP speaker still announces what it was told", "err", fmt.Errorf("take back what is announced: %w", err))
	}
	return nil
}
