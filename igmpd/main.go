// igmpd is a multicast router that takes extended, authenticated joins. See igmpd.toml for its configuration.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/igmpd/internal/config"
	"github.com/manycast/manycast/igmpd/internal/kernel"
	"github.com/manycast/manycast/igmpd/internal/kernel/holder"
	"github.com/manycast/manycast/igmpd/internal/service"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/records"
)

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "igmpd:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	path, check, keep := "/etc/manycast/igmpd.toml", false, false
	cmd := &cobra.Command{
		Use:           "igmpd",
		Short:         "Multicast router with the extended, authenticated join",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			source, err := cfg.Keys.Open()
			if err != nil || check {
				return err
			}
			return run(cmd.Context(), cfg, source, keep)
		},
	}
	cmd.Flags().StringVar(&path, "config", path, "configuration file")
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration and exit")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the forwarding state in the kernel at a clean stop")
	cmd.AddCommand(holderCommand())
	return cmd
}

func holderCommand() *cobra.Command {
	var socket string
	var check bool
	cmd := &cobra.Command{
		Use:   "holder",
		Short: "Hold the kernel's multicast routing sockets, so that forwarding outlives igmpd",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if check {
				return holder.Check(socket)
			}
			if err := daemon.Require(holderNeeds()...); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			return daemon.Run(cmd.Context(), log, holder.New(socket, daemon.NewFDStore(), log))
		},
	}
	cmd.Flags().StringVar(&socket, "socket", config.Default().Holder, "unix socket")
	cmd.Flags().BoolVar(&check, "check", false, "check that there can be such a socket, and exit")
	return cmd
}

func run(ctx context.Context, cfg config.Config, source records.Source, keep bool) error {
	log, err := daemon.Logger(cfg.Log.Level, os.Stderr)
	if err != nil {
		return err
	}
	if err := daemon.Require(routerNeeds(cfg)...); err != nil {
		return err
	}
	lock, err := daemon.Lock(cfg.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("which boot this is: %w", err)
	}
	network, err := service.OpenNetwork(cfg.InterfaceNames(), log)
	if err != nil {
		return err
	}
	defer network.Close()
	forwarder, err := kernel.Open(cfg.Kernel(), log)
	if err != nil {
		return err
	}
	options := service.Options{
		Config: cfg, Network: network, Forwarder: forwarder, Keys: source, Log: log, Keep: keep, BootID: strings.TrimSpace(string(boot)),
	}
	var c *bus.Conn
	if len(cfg.Bus.URLs) > 0 {
		c, err = bus.Connect(bus.Config{URLs: cfg.Bus.URLs, Credentials: cfg.Bus.Credentials, Name: "igmpd " + cfg.Name, Log: log})
		if err != nil {
			return err
		}
		defer c.Close()
	}
	tasks, err := openControl(&options, c)
	if err != nil {
		return err
	}
	s, err := service.New(options)
	if err != nil {
		return err
	}
	tasks = append(tasks, s)
	if c != nil {
		tasks = append(tasks, daemon.Func("bus", func(ctx context.Context) error { return service.ServeBus(ctx, c, cfg.Name, s) }))
	}
	edges, err := listen(cfg, s, options.Control, log)
	if err != nil {
		return err
	}
	return daemon.Run(ctx, log, append(tasks, edges...)...)
}

// listen opens what others ask at, before anybody is told that igmpd is ready.
func listen(cfg config.Config, s *service.Service, c service.Control, log *slog.Logger) ([]daemon.Task, error) {
	status, err := service.ListenStatus(cfg.StateDir, s, log)
	if err != nil || cfg.Metrics.Listen == "" {
		return []daemon.Task{status}, err
	}
	var more []prometheus.Collector
	if m, ok := c.(prometheus.Collector); ok {
		more = append(more, m)
	}
	metrics, err := service.ListenMetrics(cfg.Metrics.Listen, s, more...)
	return []daemon.Task{status, metrics}, err
}
