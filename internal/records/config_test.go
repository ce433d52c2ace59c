package records

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/record"
)

func TestConfigRefuses(t *testing.T) {
	server := []string{"192.0.2.53:53"}
	for what, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"nobody":              {func(*Config) {}, ""},
		"plain server":        {func(c *Config) { c.Servers = server }, "authenticated"},
		"half of TSIG":        {func(c *Config) { c.Servers, c.TSIGName = server, "x." }, "authenticated"},
		"TSIG":                {func(c *Config) { c.Servers, c.TSIGName, c.TSIGSecretFile = server, "x.", "secret" }, ""},
		"TLS of anybody":      {func(c *Config) { c.Servers, c.TLS = server, true }, "tls_server_name"},
		"TLS":                 {func(c *Config) { c.Servers, c.TLS, c.TLSServerName = server, true, "dns.example" }, ""},
		"authority, no TLS":   {func(c *Config) { c.TLSCA = "ca.pem" }, "without tls"},
		"a name for a server": {func(c *Config) { c.Servers, c.TLS, c.TLSServerName = []string{"dns.example"}, true, "x" }, "address:port"},
		"no time":             {func(c *Config) { c.TTLMax = 0 }, "ttl_max"},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		var errs []error
		cfg.Check(func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) })
		if err := errors.Join(errs...); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

func TestConfigOpens(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, _ := certificate(t)
	ca := file("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	secretFile := filepath.Join(dir, "tsig")
	if err := keyfile.WriteTSIG(secretFile); err != nil {
		t.Fatal(err)
	}
	pinned := filepath.Join(dir, "shop.yaml")
	writeRecords(t, pinned, testRecord(t, 1, ""))
	none := filepath.Join(dir, "none")
	server := []string{"127.0.0.1:1"}
	for what, c := range map[string]struct {
		cfg  Config
		good bool
	}{
		"nothing":           {Config{}, true},
		"pinned":            {Config{Pinned: []string{pinned}}, true},
		"pinned, not there": {Config{Pinned: []string{none}}, false},
		"TSIG":              {Config{Servers: server, TSIGName: "x.", TSIGSecretFile: secretFile}, true},
		"TSIG, not there":   {Config{Servers: server, TSIGName: "x.", TSIGSecretFile: none}, false},
		"TLS":               {Config{Servers: server, TLS: true, TLSServerName: "x", TLSCA: ca}, true},
		"no such authority": {Config{Servers: server, TLS: true, TLSServerName: "x", TLSCA: none}, false},
		"no certificate":    {Config{Servers: server, TLS: true, TLSServerName: "x", TLSCA: pinned}, false},
	} {
		s, err := c.cfg.Open()
		if (err == nil) != c.good {
			t.Errorf("%s: %v", what, err)
		}
		if c.good {
			_, _, err := s.Fetch(t.Context(), group)
			if asked := len(c.cfg.Servers) > 0; (len(c.cfg.Pinned) > 0) != (err == nil) || !asked && err != nil && !errors.Is(err, record.ErrNone) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}
