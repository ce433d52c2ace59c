package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/fastpath"
	"github.com/manycast/manycast/tdpd/internal/journal"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/neighbors"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/service"
	"github.com/manycast/manycast/tdpd/internal/transport"
)

// open opens what the service works with. What is open stays so where another part fails: the process ends then, and leaves what is in
// the kernel to the next one.
func open(o *service.Options, log *slog.Logger) (routes.Watcher, error) {
	cfg := o.Config
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("which boot this is: %w", err)
	}
	if err := os.MkdirAll(cfg.RuntimeDir, 0o700); err != nil {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	if err := openTables(o, log); err != nil {
		return nil, err
	}
	if o.Journal, err = journal.Open(filepath.Join(cfg.StateDir, "labels"), strings.TrimSpace(string(boot))); err != nil {
		return nil, err
	}
	o.Users = binding.File(filepath.Join(cfg.StateDir, "users"))
	if o.Network, err = transport.Open(transport.Config{ID: cfg.ID(), Transport4: cfg.Transport4, Transport6: cfg.Transport6}, log); err != nil {
		return nil, err
	}
	watcher, err := routes.Open(uint8(cfg.Labels.RouteProtocol), log)
	if err != nil {
		return nil, err
	}
	o.Routes = watcher.Changes()
	return watcher, nil
}

// openTables opens what forwards.
func openTables(o *service.Options, log *slog.Logger) (err error) {
	cfg := o.Config
	var fast *fastpath.Fastpath
	if cfg.Forwarding.Fast {
		fast, err = fastpath.Open(fastpath.Options{
			Pins: cfg.Forwarding.BPFFS, Self4: cfg.Self4(), Self6: cfg.Transport6, Sources: cfg.Forwarding.TunnelsFrom,
			Alone: cfg.Forwarding.Tables == config.TablesNone,
		})
	} else {
		err = fastpath.Remove(cfg.Forwarding.BPFFS)
	}
	if err != nil {
		return err
	}
	if cfg.Forwarding.Tables == config.TablesNone {
		o.Kernel = kernel.NewNone(fast.Labels())
	} else if o.Kernel, err = kernel.Open(kernel.Config{PlatformLabels: uint32(cfg.Labels.Last) + 1, RouteProtocol: uint8(cfg.Labels.RouteProtocol), Former: filepath.Join(cfg.RuntimeDir, "settings")}, log); err != nil {
		return err
	}
	if fast == nil {
		return nil
	}
	n, err := neighbors.Open(log)
	if err != nil {
		return err
	}
	backend, err := fastpath.NewBackend(o.Kernel, fast, n, cfg.Sides(), cfg.Forwarding.TunnelMTU, log)
	if err != nil {
		return err
	}
	o.Kernel, o.Steer, o.Counters = backend, backend.Steer, backend.Counters
	return nil
}
