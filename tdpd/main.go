// tdpd distributes tags: LDP (RFC 5036) with the routers around, and the kernel's MPLS tables; and speaks BGP with those that are there already. See tdpd.toml for its configuration.
package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/edge"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/service"
)

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "tdpd:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	path, check, keep := "/etc/manycast/tdpd.toml", false, false
	cmd := &cobra.Command{
		Use:           "tdpd",
		Short:         "Tag distribution: LDP, and the kernel's MPLS tables",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			secrets, err := cfg.Secrets()
			if err != nil {
				return err
			}
			base, err := cfg.Desired()
			if err != nil || check {
				return err
			}
			return run(cmd.Context(), cfg, secrets, base, keep)
		},
	}
	cmd.Flags().StringVar(&path, "config", path, "configuration file")
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration and exit")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the entries in the kernel at a clean stop")
	cmd.AddCommand(speaker())
	return cmd
}

func run(ctx context.Context, cfg config.Config, secrets map[netip.Addr]string, base bgp.Desired, keep bool) error {
	log, err := daemon.Logger(cfg.Log.Level, os.Stderr)
	if err != nil {
		return err
	}
	cfg.Forwarding = cfg.Forwarding.On(kernel.HasMPLS())
	if err := daemon.Require(needs(cfg)...); err != nil {
		return err
	}
	lock, err := daemon.Lock(cfg.StateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	options := service.Options{Config: cfg, Secrets: secrets, Log: log, Keep: keep}
	watcher, err := open(&options, log)
	if err != nil {
		return err
	}
	tasks := []daemon.Task{daemon.Func("routes", watcher.Run)}
	var c *bus.Conn
	if len(cfg.Bus.URLs) > 0 {
		c, err = bus.Connect(bus.Config{URLs: cfg.Bus.URLs, Credentials: cfg.Bus.Credentials, Name: "tdpd " + cfg.Name, Log: log})
		if err != nil {
			return err
		}
		defer c.Close()
		more, err := useBus(&options, c)
		if err != nil {
			return err
		}
		tasks = append(tasks, more...)
	}
	heard, more, err := openControl(&options, c)
	if err != nil {
		return err
	}
	tasks = append(tasks, more...)
	peering, more, err := openBGP(&options, base)
	if err != nil {
		return err
	}
	tasks = append(tasks, more...)
	s, err := service.New(options)
	if err != nil {
		return err
	}
	edges, err := listen(cfg, edge.AskBGP(s, cfg.Name, peering), c, heard, peering, log)
	if err != nil {
		return err
	}
	return daemon.Run(ctx, log, append(append(tasks, s), edges...)...)
}
