// Package config is dnsd's configuration file.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/manycast/manycast/internal/daemon"
)

// Config is dnsd.toml; the reference file beside main.go explains each key.
type Config struct {
	Listen      []string `toml:"listen"`
	DataDir     string   `toml:"data_dir"`
	EDNSUDPSize uint16   `toml:"edns_udp_size"`
	Log         struct {
		Level string `toml:"level"`
	} `toml:"log"`
	Zones   []Zone `toml:"zone"`
	TSIG    []TSIG `toml:"tsig"`
	TLS     TLS    `toml:"tls"`
	Metrics struct {
		Listen string `toml:"listen"`
	} `toml:"metrics"`
}

// Zone is one zone that dnsd is authoritative for.
type Zone struct {
	Name string   `toml:"name"`
	NS   []string `toml:"ns"`
	Mbox string   `toml:"mbox"`
	File string   `toml:"file"`
}

// TSIG is a client and what it may do.
type TSIG struct {
	Name       string `toml:"name"`
	SecretFile string `toml:"secret_file"`
	Update     bool   `toml:"update"`
}

// TLS is DNS over TLS (RFC 7858); off where nothing is listened on.
type TLS struct {
	Listen []string `toml:"listen"`
	Cert   string   `toml:"cert"`
	Key    string   `toml:"key"`
}

// Default is the configuration of an empty file.
func Default() Config {
	c := Config{Listen: []string{"127.0.0.1:53"}, DataDir: "/var/lib/manycast/dnsd", EDNSUDPSize: 1232}
	c.Log.Level = "info"
	return c
}

// Load reads and checks a file.
func Load(path string) (Config, error) {
	c := Default()
	if err := daemon.Load(path, &c); err != nil {
		return Config{}, err
	}
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

func (c Config) check() error {
	if len(c.Listen)+len(c.TLS.Listen) == 0 {
		return errors.New("listen: no address")
	}
	for _, a := range slices.Concat(c.Listen, c.TLS.Listen) {
		if _, err := netip.ParseAddrPort(a); err != nil {
			return fmt.Errorf("listen: %q: want address:port", a)
		}
	}
	if c.EDNSUDPSize < 512 || c.EDNSUDPSize > 4096 {
		return fmt.Errorf("edns_udp_size: %d: want 512 to 4096", c.EDNSUDPSize)
	}
	if len(c.TLS.Listen) > 0 && (c.TLS.Cert == "" || c.TLS.Key == "") {
		return errors.New("tls: listen needs cert and key")
	}
	if c.DataDir == "" {
		return errors.New("data_dir: no directory")
	}
	return errors.Join(c.checkZones(), c.checkTSIG())
}

func (c Config) checkZones() error {
	if len(c.Zones) == 0 {
		return errors.New("no [[zone]]: dnsd would have nothing to say")
	}
	seen := map[string]bool{}
	for _, z := range c.Zones {
		name := dns.CanonicalName(z.Name)
		if _, ok := dns.IsDomainName(z.Name); !ok || !plain(name) {
			return fmt.Errorf("zone %q: want a domain name of letters, digits, hyphens and underscores", z.Name)
		}
		if seen[name] {
			return fmt.Errorf("zone %s: twice", name)
		}
		seen[name] = true
		if len(z.NS) == 0 || z.Mbox == "" {
			return fmt.Errorf("zone %s: ns and mbox are needed", name)
		}
		for _, n := range append([]string{z.Mbox}, z.NS...) {
			if _, ok := dns.IsDomainName(n); !ok {
				return fmt.Errorf("zone %s: %q is no domain name", name, n)
			}
		}
	}
	return nil
}

// plain keeps zone names usable as file names.
func plain(name string) bool {
	return name != "." && !slices.ContainsFunc([]rune(name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

func (c Config) checkTSIG() error {
	seen := map[string]bool{}
	for _, k := range c.TSIG {
		name := dns.CanonicalName(k.Name)
		if _, ok := dns.IsDomainName(k.Name); !ok || name == "." {
			return fmt.Errorf("tsig %q: want a key name, a domain name", k.Name)
		}
		if seen[name] {
			return fmt.Errorf("tsig %s: twice", name)
		}
		seen[name] = true
		if k.SecretFile == "" {
			return fmt.Errorf("tsig %s: no secret_file", name)
		}
	}
	return nil
}
