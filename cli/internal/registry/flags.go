package registry

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/pflag"

	"github.com/manycast/manycast/internal/keyfile"
)

// Flags are how a user names the server and the key.
type Flags struct {
	server, tsig string
}

// Add adds --dns and --tsig.
func (f *Flags) Add(flags *pflag.FlagSet) {
	env := func(name, fallback string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return fallback
	}
	flags.StringVar(&f.server, "dns", env("MANYCAST_DNS", "127.0.0.1:53"), "dnsd that has the groups' zones (environment: MANYCAST_DNS)")
	flags.StringVar(&f.tsig, "tsig", env("MANYCAST_TSIG", "manycast-cli.=/etc/manycast/tsig/manycast-cli"),
		"TSIG key to sign with, NAME=FILE (environment: MANYCAST_TSIG)")
}

// Open reads the key. Records get the given TTL.
func (f *Flags) Open(ttl time.Duration, now func() time.Time) (*Registry, error) {
	name, file, ok := strings.Cut(f.tsig, "=")
	if !ok {
		return nil, fmt.Errorf("--tsig %q: want NAME=FILE", f.tsig)
	}
	secret, err := keyfile.ReadTSIG(file)
	if err != nil {
		return nil, fmt.Errorf("--tsig: %w", err)
	}
	server := f.server
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(strings.Trim(server, "[]"), "53")
	}
	return &Registry{Server: server, KeyName: dns.CanonicalName(name), Secret: secret, TTL: uint32(ttl / time.Second), Now: now}, nil
}
