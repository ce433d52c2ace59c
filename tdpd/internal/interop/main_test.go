// Package interop tests tdpd's service with real packets: beside FRR's ldpd, beside itself and beside peers that behave badly, on a
// kernel with MPLS (docs/testing.md). Each router is a process in a network namespace of its own, so that it can be killed.
package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/edge"
	"github.com/manycast/manycast/tdpd/internal/fastpath"
	"github.com/manycast/manycast/tdpd/internal/journal"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/neighbors"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/service"
	"github.com/manycast/manycast/tdpd/internal/transport"
)

// roleEnv has the role of a process that is a router: the test binary is both.
const roleEnv = "MANYCAST_TDPD_INTEROP_ROLE"

// role is what a router has to know.
type role struct {
	Config  config.Config
	Secrets map[string]string // TCP MD5, by router id
	Quiet   bool              // of bindings how many there are, once in a while
}

func TestMain(m *testing.M) {
	text := os.Getenv(roleEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var r role
	err := json.Unmarshal([]byte(text), &r)
	if err == nil {
		err = r.play()
	}
	if err != nil {
		fmt.Println("tdpd:", err)
		os.Exit(1)
	}
}

// play is the daemon without bus and metrics. It writes what happens, and stops at SIGTERM; at SIGHUP it stops as for a restart.
func (r role) play() error {
	cfg := r.Config
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug}))
	bindings := newBindings()
	o := service.Options{Config: cfg, Secrets: map[netip.Addr]string{}, Log: log, Publish: func(e service.Event) { r.tell(e, bindings) }}
	for id, secret := range r.Secrets {
		o.Secrets[netip.MustParseAddr(id)] = secret
	}
	watcher, err := routes.Open(uint8(cfg.Labels.RouteProtocol), log)
	if err != nil {
		return err
	}
	o.Routes = watcher.Changes()
	if err := r.openTables(&o, log); err != nil {
		return err
	}
	o.Users = binding.File(filepath.Join(cfg.StateDir, "users"))
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	if o.Journal, err = journal.Open(filepath.Join(cfg.StateDir, "labels"), strings.TrimSpace(string(boot))); err != nil {
		return err
	}
	if o.Network, err = transport.Open(transport.Config{ID: cfg.ID(), Transport4: cfg.Transport4, Transport6: cfg.Transport6}, log); err != nil {
		return err
	}
	s, err := service.New(o)
	if err != nil {
		return err
	}
	status, err := edge.ListenStatus(cfg.StateDir, s, log)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return watcher.Run(ctx) })
	g.Go(func() error { return s.Run(ctx) })
	g.Go(func() error { return status.Run(ctx) })
	if r.Quiet {
		g.Go(func() error { return bindings.tell(ctx) })
	}
	g.Go(func() error {
		select {
		case <-s.Ready():
			fmt.Println("ready")
		case <-ctx.Done():
		}
		return nil
	})
	return g.Wait()
}

// openTables opens what forwards: the kernel's tables, and in front of them the fast path where that is wanted. It has little room: user-mode
// Linux takes long to look through much.
func (r role) openTables(o *service.Options, log *slog.Logger) (err error) {
	cfg := r.Config
	if o.Kernel, err = kernel.Open(kernel.Config{PlatformLabels: uint32(cfg.Labels.Last) + 1, RouteProtocol: uint8(cfg.Labels.RouteProtocol), Former: filepath.Join(cfg.StateDir, "settings")}, log); err != nil || !cfg.Forwarding.Fast {
		return err
	}
	fast, err := fastpath.Open(fastpath.Options{Owners: 64, Labels: 4096, Hops: 4096, Pins: cfg.Forwarding.BPFFS, Self4: cfg.Self4(), Self6: cfg.Transport6})
	if err != nil {
		return err
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

// tell writes an event as a line.
func (r role) tell(e service.Event, counts bindings) {
	switch e.What {
	case service.SessionUp:
		fmt.Println("session-up", e.Peer)
	case service.SessionDown:
		fmt.Println("session-down", e.Peer, e.Why)
	default:
		if !r.Quiet {
			fmt.Println(e.What, e.Peer, e.FEC, uint32(e.Label))
		} else {
			counts[e.What].Add(1)
		}
	}
}

// bindings counts their changes.
type bindings map[service.What]*atomic.Int64

func newBindings() bindings {
	return bindings{service.BindingBound: {}, service.BindingUnbound: {}, service.BindingLearned: {}, service.BindingLost: {}}
}

// tell writes how many there are, when that has changed.
func (b bindings) tell(ctx context.Context) error {
	for last := ""; ; {
		now := fmt.Sprint(b[service.BindingBound].Load()-b[service.BindingUnbound].Load(), " ", b[service.BindingLearned].Load()-b[service.BindingLost].Load())
		if now != last {
			fmt.Println("bindings", now)
			last = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}
