package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/connects"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/lbd/internal/client"
	"github.com/manycast/manycast/lbd/internal/config"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/metrics"
)

var clientNeeds = []daemon.Need{
	{Capability: daemon.NetAdmin, To: "attach programs to interfaces and to a control group"},
	{Capability: daemon.BPF, To: "load them"},
}

// clientRole is `lbd client`; by a flag `manycast connect` runs it for one command.
func clientRole(stderr io.Writer) *cobra.Command {
	var dir string
	var connect *connects.Run
	load := func(file string) (_ config.Client, err error) {
		if dir == "" {
			return config.LoadClient(file, func(*config.Client) {})
		}
		if connect, err = connects.Join(dir, os.NewFile(connectLock, "lock of the run")); err != nil {
			return config.Client{}, err
		}
		return config.LoadClient(file, func(c *config.Client) {
			c.Cgroup, c.BPFFS, c.Socket = connect.Made.Group, connect.Made.Pins, filepath.Join(dir, clientstatus.SocketName)
		})
	}
	run := func(ctx context.Context, cfg config.Client, keep bool, stderr io.Writer) error {
		if connect == nil {
			return runClient(ctx, cfg, keep, stderr)
		}
		err := runClient(untilEOF(ctx, os.Stdin), cfg, false, stderr)
		return errors.Join(err, connect.Remove())
	}
	cmd := role("client", "Follow connections of this host to where their servers move them", stderr, load, run)
	cmd.Flags().StringVar(&dir, "connect", "", "of manycast connect: its directory, whose lock is descriptor 3, until standard input ends")
	_ = cmd.Flags().MarkHidden("connect") // there is one
	return cmd
}

// connectLock is the descriptor by which `manycast connect` hands on its lock.
const connectLock = 3

// untilEOF is ctx until nobody has the other end of a pipe any more.
func untilEOF(ctx context.Context, pipe io.Reader) context.Context {
	ctx, end := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, pipe)
		end()
	}()
	return ctx
}

func runClient(ctx context.Context, cfg config.Client, keep bool, stderr io.Writer) error {
	log, err := daemon.Logger(cfg.Log.Level, stderr)
	if err != nil {
		return err
	}
	if err := daemon.Require(clientNeeds...); err != nil {
		return err
	}
	swept, err := connects.Sweep(clientstatus.RunDir)
	if len(swept) > 0 {
		log.Info("removed what killed runs of manycast connect have left", "of", swept)
	}
	if err != nil {
		log.Warn("killed runs of manycast connect", "err", err)
	}
	source, err := cfg.Keys.Open()
	if err != nil {
		return err
	}
	plane, err := kernel.OpenClient(kernel.Config{Interfaces: cfg.Interfaces, Cgroup: cfg.Cgroup, Bpffs: cfg.BPFFS, Log: log})
	if err != nil {
		return err
	}
	loop := client.New(client.Config{
		Services: clientServices(cfg), Scope: cfg.Cgroup, Plane: plane, Source: source, TTLMax: cfg.Keys.TTLMax, Keep: keep, Log: log,
		Limits: movement.FollowerLimits{
			Connections: cfg.Limits.Connections, Past: cfg.Limits.Past, Future: cfg.Limits.Future,
			Each: cfg.Limits.SignaturesEach, All: cfg.Limits.SignaturesAll,
		},
	})
	tasks, err := clientTasks(cfg, loop, plane)
	if err != nil {
		return errors.Join(err, plane.Close(true))
	}
	return daemon.Run(ctx, log, tasks...)
}

func clientTasks(cfg config.Client, loop *client.Loop, plane kernel.Client) ([]daemon.Task, error) {
	status, err := client.ListenStatus(cfg.Socket, loop)
	if err != nil {
		return nil, err
	}
	return withMetrics([]daemon.Task{loop, status}, cfg.Metrics.Listen, metrics.NewCounters("client", plane.Counters), loop)
}

func clientServices(cfg config.Client) (all []client.Service) {
	for _, s := range cfg.Services {
		for _, vip := range s.Addresses {
			all = append(all, client.Service{Name: s.Name, VIP: vip})
		}
	}
	return all
}
