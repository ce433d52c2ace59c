package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/edge"
	"github.com/manycast/manycast/tdpd/internal/service"
)

// useBus has the service hear of servers on the bus, and tell events.
func useBus(o *service.Options, c *bus.Conn) ([]daemon.Task, error) {
	events := edge.NewEvents(c, o.Config.Name, o.Log)
	o.Publish = events.Put
	if !o.Config.Servers.FromBus {
		return []daemon.Task{events}, nil
	}
	servers, err := edge.NewServers(c, filepath.Join(o.Config.StateDir, "servers"), o.Config.Servers.Linger, o.Log)
	if err != nil {
		return nil, err
	}
	o.Servers = servers.All()
	return []daemon.Task{events, servers}, nil
}

// listen opens what others ask at, before anybody is told that tdpd is ready.
func listen(cfg config.Config, s edge.Asker, c *bus.Conn, heard *channel.Channel, peering *edge.Peering, log *slog.Logger) ([]daemon.Task, error) {
	status, err := edge.ListenStatus(cfg.StateDir, s, log)
	tasks := []daemon.Task{status}
	if c != nil {
		tasks = append(tasks, daemon.Func("bus", func(ctx context.Context) error { return edge.ServeBus(ctx, c, cfg.Name, s) }))
	}
	if cfg.Metrics.Listen == "" {
		return tasks, err
	}
	var collectors []prometheus.Collector
	if heard != nil {
		collectors = append(collectors, heard)
	}
	if peering != nil {
		collectors = append(collectors, peering.Metrics())
	}
	metrics, errMetrics := edge.ListenMetrics(cfg.Metrics.Listen, s, collectors...)
	return append(tasks, metrics), errors.Join(err, errMetrics)
}
