package config

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/lbd/internal/relay"
	"github.com/manycast/manycast/lbd/migrate"
)

// Relay is relay.toml, which says what each key means.
type Relay struct {
	Agent          string                `toml:"agent"`
	Connections    int                   `toml:"connections_max"`
	ConnectTimeout time.Duration         `toml:"connect_timeout"`
	StopTimeout    time.Duration         `toml:"stop_timeout"`
	Table          int                   `toml:"table"`
	Log            daemon.LogSection     `toml:"log"`
	Metrics        daemon.MetricsSection `toml:"metrics"`
	Listens        []relay.Listen        `toml:"listen"`
}

// DefaultRelay has the defaults of relay.toml.
func DefaultRelay() Relay {
	return Relay{
		Agent: migrate.DefaultAgent, Connections: 65536, ConnectTimeout: 5 * time.Second, StopTimeout: 10 * time.Second, Table: 8466,
		Log: daemon.LogSection{Level: "info"},
	}
}

// LoadRelay reads and checks a relay's file.
func LoadRelay(path string) (Relay, error) {
	c := DefaultRelay()
	if err := daemon.Load(path, &c); err != nil {
		return c, err
	}
	return c, inFile(path, c.check())
}

func (c Relay) check() error {
	errs := []error{checkDir("agent", c.Agent), c.Metrics.Check()}
	if c.Connections < 1 || c.Connections > 1<<20 {
		errs = append(errs, fmt.Errorf("connections_max %d: want 1 to %d", c.Connections, 1<<20))
	}
	if c.ConnectTimeout <= 0 || c.ConnectTimeout > time.Minute || c.StopTimeout < 0 || c.StopTimeout > time.Hour {
		errs = append(errs, fmt.Errorf("connect_timeout %v and stop_timeout %v: want more than 0s up to 1m, and 0s to 1h", c.ConnectTimeout, c.StopTimeout))
	}
	if c.Table < 1 || c.Table > 1<<31-1 || 253 <= c.Table && c.Table <= 255 {
		errs = append(errs, fmt.Errorf("table %d: want the number of a table that nobody uses, 1 to %d but the kernel's own, 253 to 255", c.Table, 1<<31-1))
	}
	if len(c.Listens) == 0 {
		errs = append(errs, errors.New("no [[listen]]: name a VIP's address and the backend behind it"))
	}
	taken := map[netip.AddrPort]bool{}
	for _, l := range c.Listens {
		if err := l.Check(); err != nil {
			errs = append(errs, fmt.Errorf("listen %q: %w", l.Name, err))
		}
		for _, a := range l.Addresses {
			if taken[a] {
				errs = append(errs, fmt.Errorf("listen %q: address %v is there twice", l.Name, a))
			}
			taken[a] = true
		}
	}
	return errors.Join(errs...)
}
