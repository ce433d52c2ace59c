package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/fastpath"
	"github.com/manycast/manycast/tdpd/internal/journal"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/marking"
	"github.com/manycast/manycast/tdpd/internal/neighbors"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/service"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/vips"
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

// openTables opens what forwards, one in front of the other: the kernel's tables, marks that lead users there, and the fast path. What a
// process of another configuration has left goes.
func openTables(o *service.Options, log *slog.Logger) (err error) {
	f := o.Config.Forwarding
	var fast *fastpath.Fastpath
	if f.Fast {
		fast, err = fastpath.Open(fastpath.Options{
			Pins: f.BPFFS, Self4: o.Config.Self4(), Self6: o.Config.Transport6, Sources: f.TunnelsFrom, Alone: f.Tables == config.TablesNone,
		})
	} else {
		err = fastpath.Remove(f.BPFFS)
	}
	if err != nil {
		return err
	}
	if err := openKernel(o, fast, log); err != nil {
		return err
	}
	var steer []func(vips.Users) error
	var count []func() (map[string]uint64, error)
	if fast != nil {
		backend, err := openFast(o, fast, log)
		if err != nil {
			return err
		}
		o.Kernel, count = backend, append(count, backend.Counters)
		if f.FastUsers() {
			steer, o.Tagless = append(steer, backend.Steer), backend.Tagless()
		} else if err := backend.Steer(vips.Users{}); err != nil {
			return err
		}
	}
	if f.Marks() {
		backend, err := marking.Open(f.Marking(), o.Kernel, log)
		if err != nil {
			return err
		}
		o.Kernel, steer, count = backend, append(steer, backend.Steer), append(count, backend.Counters)
	} else if err := marking.Remove(marking.PinsBelow(f.BPFFS)); err != nil {
		return err
	}
	log.Info("forwards", "tables", f.Tables, "fast_path", f.Fast, "marks", f.Marks())
	o.Steer, o.Counters = eachSteers(steer), allCount(count)
	return nil
}

// eachSteers gives users to all that steer; nil: there are none.
func eachSteers(all []func(vips.Users) error) func(vips.Users) error {
	if len(all) == 0 {
		return nil
	}
	return func(u vips.Users) (err error) {
		for _, steer := range all {
			err = errors.Join(err, steer(u))
		}
		return err
	}
}

// allCount are the counters of all; nil: there are none.
func allCount(all []func() (map[string]uint64, error)) func() (map[string]uint64, error) {
	if len(all) == 0 {
		return nil
	}
	return func() (map[string]uint64, error) {
		sum := map[string]uint64{}
		for _, count := range all {
			c, err := count()
			if err != nil {
				return nil, err
			}
			maps.Copy(sum, c)
		}
		return sum, nil
	}
}

// openKernel opens the kernel's tables, or what stands for them where it has none.
func openKernel(o *service.Options, fast *fastpath.Fastpath, log *slog.Logger) (err error) {
	cfg := o.Config
	if cfg.Forwarding.Tables == config.TablesNone {
		o.Kernel = kernel.NewNone(fast.Labels())
		return nil
	}
	o.Kernel, err = kernel.Open(kernel.Config{
		PlatformLabels: uint32(cfg.Labels.Last) + 1, RouteProtocol: uint8(cfg.Labels.RouteProtocol), Former: filepath.Join(cfg.RuntimeDir, "settings"),
	}, log)
	return err
}

func openFast(o *service.Options, fast *fastpath.Fastpath, log *slog.Logger) (*fastpath.Backend, error) {
	n, err := neighbors.Open(log)
	if err != nil {
		return nil, err
	}
	return fastpath.NewBackend(o.Kernel, fast, n, o.Config.Sides(), o.Config.Forwarding.TunnelMTU, log)
}
