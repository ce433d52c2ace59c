// Command dnsd is an authoritative DNS server that bears the keys of multicast groups.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/manycast/manycast/dnsd/internal/config"
	"github.com/manycast/manycast/dnsd/internal/server"
	"github.com/manycast/manycast/dnsd/internal/zone"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/daemon/metrics"
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
		m, err := metrics.Listen(cfg.Metrics.Listen, dns.Metrics())
		if err != nil {
			return err
		}
		tasks = append(tasks, m)
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
