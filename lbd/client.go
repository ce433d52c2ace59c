package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/lbd/internal/client"
	"github.com/manycast/manycast/lbd/internal/config"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
	"github.com/manycast/manycast/lbd/internal/metrics"
)

var clientNeeds = []daemon.Need{
	{Capability: daemon.NetAdmin, To: "attach programs to interfaces and to a control group"},
	{Capability: daemon.BPF, To: "load them"},
}

// clientRole is `lbd client`; by its flags `manycast connect` runs it for one command.
func clientRole(stderr io.Writer) *cobra.Command {
	var said struct{ cgroup, bpffs, socket string }
	load := func(file string) (config.Client, error) {
		return config.LoadClient(file, func(c *config.Client) {
			for key, value := range map[*string]string{&c.Cgroup: said.cgroup, &c.BPFFS: said.bpffs, &c.Socket: said.socket} {
				if value != "" {
					*key = value
				}
			}
		})
	}
	cmd := role("client", "Follow connections of this host to where their servers move them", stderr, load, runClient)
	cmd.Flags().StringVar(&said.cgroup, "cgroup", "", "control group whose connections are followed, in place of the configuration's")
	cmd.Flags().StringVar(&said.bpffs, "bpffs", "", "directory for pins, in place of the configuration's")
	cmd.Flags().StringVar(&said.socket, "socket", "", "status socket, in place of the configuration's")
	return cmd
}

func runClient(ctx context.Context, cfg config.Client, keep bool, stderr io.Writer) error {
	log, err := daemon.Logger(cfg.Log.Level, stderr)
	if err != nil {
		return err
	}
	if err := daemon.Require(clientNeeds...); err != nil {
		return err
	}
	alone, err := claimPort(wire.Port)
	if err != nil {
		return err
	}
	defer alone.Close()
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

// claimPort makes sure that nobody else of this network namespace follows connections: each client's programs drop what is for the port,
// also what is for another one's connections. The name goes with the process.
func claimPort(port uint16) (io.Closer, error) {
	l, err := net.Listen("unix", fmt.Sprintf("@manycast-client-%d", port))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("another lbd client runs here and takes changes of destination at port %d: one at a time can, for the host or for a control group", port)
	}
	if err != nil {
		return nil, fmt.Errorf("port %d of changes of destination: %w", port, err)
	}
	return l, nil
}
