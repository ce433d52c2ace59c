package records

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/manycast/manycast/internal/keyfile"
)

// Config is [keys] of a daemon: where records come from, and why they are believed.
type Config struct {
	Pinned         []string      `toml:"pinned"`          // files or directories of `manycast group export`
	Servers        []string      `toml:"servers"`         // address:port, asked in turn
	TLS            bool          `toml:"tls"`             // in place of TSIG
	TLSServerName  string        `toml:"tls_server_name"` // whose certificate is good
	TLSCA          string        `toml:"tls_ca"`          // file of the authority's certificates; empty: the system's
	TSIGName       string        `toml:"tsig_name"`
	TSIGSecretFile string        `toml:"tsig_secret_file"`
	TTLMax         time.Duration `toml:"ttl_max"`
}

// DefaultConfig asks nobody.
func DefaultConfig() Config { return Config{TTLMax: time.Hour} }

// Check tells what is wrong. A server without authentication is.
func (c Config) Check(bad func(format string, args ...any)) {
	for _, s := range c.Servers {
		if _, err := netip.ParseAddrPort(s); err != nil {
			bad("keys.servers: %q: want address:port, such as 192.0.2.53:53", s)
		}
	}
	if len(c.Servers) > 0 && !c.TLS && (c.TSIGName == "" || c.TSIGSecretFile == "") {
		bad("keys.servers without tls or tsig_name and tsig_secret_file: keys are taken from authenticated answers only")
	}
	if c.TLS && c.TLSServerName == "" {
		bad("keys.tls without tls_server_name: whose certificate is good?")
	}
	if c.TLSCA != "" && !c.TLS {
		bad("keys.tls_ca without tls")
	}
	if c.TTLMax <= 0 {
		bad("keys.ttl_max is %v: want more than 0", c.TTLMax)
	}
}

// Open reads what the configuration names, and brings pinned files and DNS servers together; pinned records win.
func (c Config) Open() (Source, error) {
	var sources Sources
	if len(c.Pinned) > 0 {
		pinned := NewPinned(c.Pinned, time.Now)
		if err := pinned.Check(); err != nil {
			return nil, err
		}
		sources = append(sources, pinned)
	}
	if len(c.Servers) > 0 {
		d, err := c.dns()
		if err != nil {
			return nil, err
		}
		sources = append(sources, NewDNS(d))
	}
	return sources, nil
}

func (c Config) dns() (DNSConfig, error) {
	d := DNSConfig{Servers: c.Servers, TSIGName: c.TSIGName}
	if !c.TLS {
		var err error
		d.TSIGSecret, err = keyfile.ReadTSIG(c.TSIGSecretFile)
		return d, err
	}
	d.TLS = &tls.Config{ServerName: c.TLSServerName, MinVersion: tls.VersionTLS12}
	if c.TLSCA == "" {
		return d, nil
	}
	text, err := os.ReadFile(c.TLSCA)
	if err != nil {
		return d, fmt.Errorf("keys.tls_ca: %w", err)
	}
	d.TLS.RootCAs = x509.NewCertPool()
	if !d.TLS.RootCAs.AppendCertsFromPEM(text) {
		return d, fmt.Errorf("keys.tls_ca: %s has no certificate in PEM", c.TLSCA)
	}
	return d, nil
}
