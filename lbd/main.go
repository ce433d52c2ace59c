// Lbd spreads a service's users over its servers: `lbd director` at the edge, `lbd agent` beside a server, `lbd relay` in front of one,
// `lbd client` on a user's host.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/daemon/metrics"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/config"
	"github.com/manycast/manycast/lbd/internal/store"
)

func main() {
	if err := command(os.Stderr).ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "lbd:", err)
		os.Exit(1)
	}
}

func command(stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use: "lbd", Short: "Spread a service's users over its servers", SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(
		role("director", "Own VIPs at the edge; one director leads the allocation", stderr, config.LoadDirector, runDirector),
		role("agent", "Join and serve what is allocated to the server beside it", stderr, config.LoadAgent, runAgent),
		role("relay", "Stand in front of a server whose users' connections are to move", stderr, config.LoadRelay, runRelay),
		clientRole(stderr),
	)
	return root
}

// role is a command that reads its configuration and runs with it.
func role[C any](name, short string, stderr io.Writer, load func(string) (C, error),
	run func(ctx context.Context, cfg C, keep bool, stderr io.Writer) error,
) *cobra.Command {
	var file string
	var check, keep bool
	cmd := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(file)
			if err != nil || check {
				return err
			}
			return run(cmd.Context(), cfg, keep, stderr)
		},
	}
	cmd.Flags().StringVar(&file, "config", "/etc/manycast/"+name+".toml", "configuration file")
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration and exit")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the data plane as it is at a clean stop")
	return cmd
}

// base is what directors and agents start with.
type base struct {
	log      *slog.Logger
	lock     *os.File
	conn     *bus.Conn         // nil without a bus
	static   []service.Service // of the file
	isStatic bool
}

func newBase(role, name, stateDir, services string, log daemon.LogSection, cfg daemon.BusSection, stderr io.Writer) (*base, error) {
	b := &base{isStatic: services != ""}
	var err error
	if b.log, err = daemon.Logger(log.Level, stderr); err != nil {
		return nil, err
	}
	b.log = b.log.With(role, name)
	if b.isStatic {
		if b.static, err = service.Load(services); err != nil {
			return nil, err
		}
	}
	if b.lock, err = daemon.Lock(stateDir); err != nil {
		return nil, err
	}
	if len(cfg.URLs) > 0 {
		b.conn, err = bus.Connect(bus.Config{URLs: cfg.URLs, Credentials: cfg.Credentials, Name: role + " " + name, Log: b.log})
		if err != nil {
			return nil, errors.Join(err, b.lock.Close())
		}
	}
	return b, nil
}

func (b *base) close() {
	if b.conn != nil {
		b.conn.Close()
	}
	if err := b.lock.Close(); err != nil {
		b.log.Warn("lock", "err", err)
	}
}

// services are those of the file or of the bus; cache keeps the latter for a start without the bus.
func (b *base) services(ctx context.Context, cache string) <-chan []service.Service {
	if b.isStatic {
		return store.Static(b.static)
	}
	return store.WatchServices(ctx, store.OnBus(b.conn).Services, cache, b.log)
}

// withMetrics adds the metrics' task where an address is configured.
func withMetrics(tasks []daemon.Task, address string, c ...prometheus.Collector) ([]daemon.Task, error) {
	if address == "" {
		return tasks, nil
	}
	m, err := metrics.Listen(address, c...)
	if err != nil {
		return nil, err
	}
	return append(tasks, m), nil
}
