package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReferenceFile(t *testing.T) {
	c, err := Load("../../dnsd.toml")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Zones) != 2 || len(c.TSIG) != 2 {
		t.Errorf("%+v", c)
	}
	c.Zones, c.TSIG = nil, nil // the keys without a default
	want := Default()
	want.TLS.Listen = []string{}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("the reference file does not show the defaults: %s", diff)
	}
}

func TestLoadRefuses(t *testing.T) {
	zone := "[[zone]]\nname = \"cast.example.\"\nns = [\"ns1.cast.example.\"]\nmbox = \"h.cast.example.\"\n"
	for text, want := range map[string]string{
		"":                                         "no [[zone]]",
		"listne = []\n" + zone:                     "listne",
		"listen = [\"localhost\"]\n" + zone:        "address:port",
		"listen = []\n" + zone:                     "no address",
		"edns_udp_size = 100\n" + zone:             "edns_udp_size",
		zone + zone:                                "twice",
		zone + "[[zone]]\nname = \"../x\"\n":       "want a domain name",
		zone + "[[zone]]\nname = \"x.\"\n":         "ns and mbox",
		zone + "[[tsig]]\nname = \"a.\"\n":         "secret_file",
		zone + "[tls]\nlisten = [\"[::1]:853\"]\n": "cert and key",
	} {
		path := filepath.Join(t.TempDir(), "dnsd.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
