package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/records"
	"github.com/manycast/manycast/internal/service"
)

// Client is client.toml, which says what each key means.
type Client struct {
	Interfaces []string              `toml:"interfaces"`
	Cgroup     string                `toml:"cgroup"`
	BPFFS      string                `toml:"bpffs"`
	Socket     string                `toml:"socket"`
	Limits     ClientLimits          `toml:"limits"`
	Keys       records.Config        `toml:"keys"`
	Log        daemon.LogSection     `toml:"log"`
	Metrics    daemon.MetricsSection `toml:"metrics"`
	Services   []ClientService       `toml:"service"`
}

// ClientLimits is [limits] of a client: what a change of destination may cost, and how old it may be.
type ClientLimits struct {
	Past           time.Duration `toml:"past"`
	Future         time.Duration `toml:"future"`
	Connections    int           `toml:"connections"`
	SignaturesEach int           `toml:"signatures_each"`
	SignaturesAll  int           `toml:"signatures_all"`
}

// ClientService is a [[service]] of a client.
type ClientService struct {
	Name      string           `toml:"name"`
	Addresses []netip.AddrPort `toml:"addresses"`
}

// DefaultClient has the defaults of client.toml.
func DefaultClient() Client {
	return Client{
		BPFFS: "/sys/fs/bpf/manycast/client", Socket: clientstatus.DefaultSocket,
		Limits: ClientLimits{
			Past: 10 * time.Minute, Future: 10 * time.Minute, Connections: 65536, SignaturesEach: 10, SignaturesAll: 1000,
		},
		Keys: records.DefaultConfig(), Log: daemon.LogSection{Level: "info"},
	}
}

// LoadClient reads and checks a client's file. with changes what the command line says otherwise.
func LoadClient(path string, with func(*Client)) (Client, error) {
	c := DefaultClient()
	if err := daemon.Load(path, &c); err != nil {
		return c, err
	}
	with(&c)
	return c, inFile(path, c.check())
}

func (c Client) check() error {
	errs := []error{checkDir("bpffs", c.BPFFS), checkDir("socket", c.Socket), c.Metrics.Check(), c.Limits.check()}
	if len(c.Interfaces) == 0 {
		errs = append(errs, errors.New(`no interfaces: name those that lead to the servers, such as interfaces = ["eth0"]`))
	}
	if c.Cgroup != "" && !filepath.IsAbs(c.Cgroup) {
		errs = append(errs, fmt.Errorf("cgroup %q: want an absolute path, such as /sys/fs/cgroup/user.slice; or none, for the whole host", c.Cgroup))
	}
	c.Keys.Check(func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) })
	if len(c.Keys.Pinned)+len(c.Keys.Servers) == 0 {
		errs = append(errs, errors.New("neither keys.pinned nor keys.servers: without a service's public key no change of destination is believed"))
	}
	return errors.Join(append(errs, c.checkServices()...)...)
}

func (c Client) checkServices() (errs []error) {
	if len(c.Services) == 0 {
		errs = append(errs, errors.New("no [[service]]: name a VIP and its ports"))
	}
	taken := map[netip.AddrPort]bool{}
	for _, s := range c.Services {
		if err := service.CheckName(s.Name); err != nil {
			errs = append(errs, fmt.Errorf("service: %w", err))
		}
		if len(s.Addresses) == 0 {
			errs = append(errs, fmt.Errorf("service %q: no addresses", s.Name))
		}
		for _, a := range s.Addresses {
			if ip := a.Addr(); !ip.IsGlobalUnicast() || ip.Is4In6() || ip.Zone() != "" || a.Port() == 0 {
				errs = append(errs, fmt.Errorf("service %q: address %v: want a VIP and a port, such as 192.0.2.80:80", s.Name, a))
			}
			if taken[a] {
				errs = append(errs, fmt.Errorf("service %q: address %v is there twice", s.Name, a))
			}
			taken[a] = true
		}
	}
	return errs
}

func (l ClientLimits) check() error {
	var errs []error
	for name, d := range map[string]time.Duration{"past": l.Past, "future": l.Future} {
		if d < time.Second || d > 24*time.Hour {
			errs = append(errs, fmt.Errorf("limits.%s %v: want 1s to 24h", name, d))
		}
	}
	for name, n := range map[string]int{"connections": l.Connections, "signatures_each": l.SignaturesEach, "signatures_all": l.SignaturesAll} {
		if n < 1 || n > 1<<20 {
			errs = append(errs, fmt.Errorf("limits.%s %d: want 1 to %d", name, n, 1<<20))
		}
	}
	return errors.Join(errs...)
}
