// Command dnsd is an authoritative DNS server that bears the keys of multicast groups.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/manycast/manycast/dnsd/internal/config"
	"github.com/manycast/manycast/dnsd/internal/server"
	"github.com/manycast/manycast/dnsd/internal/zone"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/keyfile"
)

func main() {
	path := flag.String("config", "/etc/manycast/dnsd.toml", "configuration file")
	check := flag.Bool("check", false, "parse the configuration and exit")
	flag.Parse()
	if err := run(*path, *check); err != nil {
		fmt.Fprintln(os.Stderr, "dnsd:", err)
		os.Exit(1)
	}
}

func run(path string, check bool) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	log, err := daemon.Logger(cfg.Log.Level, os.Stderr)
	if err != nil || check {
		return err
	}
	lock, err := daemon.Lock(cfg.DataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	store, err := zone.Open(cfg.DataDir, specs(cfg), time.Now, log)
	if err != nil {
		return err
	}
	serve, err := serverConfig(cfg)
	if err != nil {
		return err
	}
	dns, err := server.Listen(serve, store, time.Now, log)
	if err != nil {
		return err
	}
	tasks := []daemon.Task{dns, daemon.Func("zones", store.Run, store.Turns()...)}
	if cfg.Metrics.Listen != "" {
		metrics, err := metricsTask(cfg.Metrics.Listen, dns.Metrics(), log)
		if err != nil {
			return err
		}
		tasks = append(tasks, metrics)
	}
	return daemon.Run(context.Background(), log, tasks...)
}

func specs(cfg config.Config) (out []zone.Spec) {
	for _, z := range cfg.Zones {
		out = append(out, zone.Spec{Name: z.Name, NS: z.NS, Mbox: z.Mbox, File: z.File})
	}
	return out
}

func serverConfig(cfg config.Config) (server.Config, error) {
	out := server.Config{Listen: cfg.Listen, TLSListen: cfg.TLS.Listen, UDPSize: cfg.EDNSUDPSize}
	for _, t := range cfg.TSIG {
		secret, err := keyfile.ReadTSIG(t.SecretFile)
		if err != nil {
			return out, fmt.Errorf("tsig %s: %w", t.Name, err)
		}
		out.Clients = append(out.Clients, server.Client{Name: t.Name, Secret: secret, Update: t.Update})
	}
	if len(cfg.TLS.Listen) > 0 {
		cert, err := tls.LoadX509KeyPair(cfg.TLS.Cert, cfg.TLS.Key)
		if err != nil {
			return out, fmt.Errorf("tls: %w", err)
		}
		out.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"dot"}}
	}
	return out, nil
}

func metricsTask(address string, collector prometheus.Collector, log *slog.Logger) (daemon.Task, error) {
	registry := prometheus.NewRegistry()
	if err := registry.Register(collector); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics.listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return daemon.Func("metrics", func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
		log.Info("metrics", "address", l.Addr())
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}), nil
}
