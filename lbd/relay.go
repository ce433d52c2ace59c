package main

import (
	"context"
	"io"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/lbd/internal/config"
	"github.com/manycast/manycast/lbd/internal/relay"
)

// transparentNeeds are of transparent backends; where somebody else sets the routes NetRaw is enough.
var transparentNeeds = []daemon.Need{
	{Capability: daemon.NetAdmin, To: "connect to backends from users' addresses, and set the routes for answers"},
}

func runRelay(ctx context.Context, cfg config.Relay, keep bool, stderr io.Writer) error {
	log, err := daemon.Logger(cfg.Log.Level, stderr)
	if err != nil {
		return err
	}
	if relay.Transparently(cfg.Listens) && daemon.Require(daemon.Need{Capability: daemon.NetRaw}) != nil {
		if err := daemon.Require(transparentNeeds...); err != nil {
			return err
		}
	}
	r, err := relay.New(relay.Config{
		Listens: cfg.Listens, Agent: cfg.Agent, Connections: cfg.Connections,
		ConnectTimeout: cfg.ConnectTimeout, StopTimeout: cfg.StopTimeout, Log: log,
	})
	if err != nil {
		return err
	}
	var task daemon.Task = r
	if routes := relay.OpenRoutes(cfg.Listens, cfg.Table, keep, log); routes != nil {
		task = daemon.Beneath(routes, r) // answers come as long as there are requests
	}
	tasks, err := withMetrics([]daemon.Task{task}, cfg.Metrics.Listen, r)
	if err != nil {
		return err
	}
	return daemon.Run(ctx, log, tasks...)
}
