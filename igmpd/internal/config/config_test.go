package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The reference file has every key with its default, but for what has none.
func TestReferenceFile(t *testing.T) {
	got, err := Load("../../igmpd.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Name, want.Roots, want.Interfaces = got.Name, got.Roots, got.Interfaces
	want.Keys.Pinned, want.Keys.Servers, want.Bus.URLs = got.Keys.Pinned, got.Keys.Servers, got.Bus.URLs // empty, not nil
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the reference file says\n%+v\nthe defaults are\n%+v", got, want)
	}
	if len(got.Roots) != 1 || len(got.Interfaces) != 2 || !got.Interfaces[0].Users || len(got.Interfaces[1].Neighbors) != 1 {
		t.Fatalf("roots %v, interfaces %+v", got.Roots, got.Interfaces)
	}
}

const good = "name = \"r\"\nroots = [\"10.1.0.1\"]\n[[interface]]\nname = \"lan\"\nmembers = true\n"

func TestCheck(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"good", good, ""},
		{"no roots", strings.Replace(good, `"10.1.0.1"`, "", 1), "no roots"},
		{"multicast root", strings.Replace(good, "10.1.0.1", "239.1.1.1", 1), "unicast"},
		{"bad address", strings.Replace(good, "10.1.0.1", "10.1.0", 1), "10.1.0"},
		{"no interface", "roots = [\"10.1.0.1\"]\n", "0 interfaces"},
		{"twice", good + "[[interface]]\nname = \"lan\"\n", "twice"},
		{"long name", good + "[[interface]]\nname = \"averyverylongname\"\n", "15 bytes"},
		{"unknown key", good + "[querier]\ninterval = \"1s\"\n", "querier.interval"},
		{"no time", good + "[querier]\nquery_interval = \"0s\"\n", "query_interval"},
		{"response longer than the interval", good + "[querier]\nquery_interval = \"5s\"\n", "8.3"},
		{"robustness", good + "[querier]\nrobustness = 9\n", "1 to 7"},
		{"unauthenticated server", good + "[keys]\nservers = [\"192.0.2.53:53\"]\n", "authenticated"},
		{"server without port", good + "[keys]\nservers = [\"192.0.2.53\"]\ntls = true\ntls_server_name = \"x\"\n", "address:port"},
		{"mode", good + "[forwarding]\nmode = \"fast\"\n", "mode"},
		{"bus without credentials", good + "[bus]\nurls = [\"nats://127.0.0.1:4222\"]\n", "credentials"},
		{"rate", good + "[admission]\nrate_per_port = 0\n", "rate_per_port"},
		{"name", strings.Replace(good, `"r"`, `"a b"`, 1), "name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "igmpd.toml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path)
			switch {
			case tt.want == "" && err != nil:
				t.Fatal(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path)):
				t.Fatalf("error %v, want one with %q and the path", err, tt.want)
			}
		})
	}
}
