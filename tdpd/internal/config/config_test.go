package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tdpd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

// The reference file has every key with its default, but for what has none.
func TestReferenceFile(t *testing.T) {
	got, err := Load("../../tdpd.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Name, want.RouterID, want.Transport4, want.Interfaces = got.Name, got.RouterID, got.Transport4, got.Interfaces
	want.Labels.Advertise, want.Labels.Accept = got.Labels.Advertise, got.Labels.Accept // empty, not nil
	want.Hello.AcceptTargeted, want.Servers.Addresses, want.Bus.URLs = got.Hello.AcceptTargeted, got.Servers.Addresses, got.Bus.URLs
	want.Users.Upstream, want.Users.VIPs = got.Users.Upstream, got.Users.VIPs
	want.Forwarding.Edge, want.Forwarding.TunnelsFrom = got.Forwarding.Edge, got.Forwarding.TunnelsFrom
	want.Control.Interfaces = got.Control.Interfaces
	want.BGP.Listen, want.BGP.VIPs = got.BGP.Listen, got.BGP.VIPs
	a, f := &want.BGP.Announce, &want.BGP.FlowSpec
	a.VIPs, a.Covers, f.Within, f.VRFs = got.BGP.Announce.VIPs, got.BGP.Announce.Covers, got.BGP.FlowSpec.Within, got.BGP.FlowSpec.VRFs
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("the reference file says\n%+v\nthe defaults are\n%+v", got, want)
	}
	if n := len(got.Labels.Advertise) + len(got.Labels.Accept) + len(got.Hello.AcceptTargeted) + len(got.Servers.Addresses) + len(got.Bus.URLs) + len(got.Control.Interfaces) + len(got.Users.Upstream) + len(got.Users.VIPs) + len(got.Forwarding.Edge) + len(got.Forwarding.TunnelsFrom) + len(got.BGP.Listen) + len(got.BGP.VIPs) + len(a.VIPs) + len(a.Covers) + len(f.Within) + len(f.VRFs); n != 0 {
		t.Errorf("%d defaults that are none", n)
	}
}

func TestLeastThatWorks(t *testing.T) {
	c, err := load(t, "router_id = \"10.0.0.1\"\ninterfaces = [\"eth1\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.Transport4 != netip.MustParseAddr("10.0.0.1") || c.ID().String() != "10.0.0.1:0" || c.LabelsConfig().Last != 1_048_574 {
		t.Errorf("%+v", c)
	}
	filter := c.LabelsConfig()
	for prefix, want := range map[string]bool{"0.0.0.0/0": false, "::/0": false, "10.0.0.0/8": true, "2001:db8::1/128": true} {
		if got := filter.Allocate(netip.MustParsePrefix(prefix)); got != want {
			t.Errorf("a label for %s: %v", prefix, got)
		}
	}
}

// TestLimits: those of the file are those that hold.
func TestLimits(t *testing.T) {
	c, err := load(t, `router_id = "10.0.0.1"
interfaces = ["eth1"]
[session]
path_vector_limit = 7
hop_count_limit = 8
[limits]
bindings = 1
all_bindings = 2
addresses = 3
adjacencies = 4
`)
	if err != nil {
		t.Fatal(err)
	}
	if l := c.LabelsConfig(); l.PathLimit != 7 || l.HopLimit != 8 || l.MaxBindings != 1 || l.AllBindings != 2 || l.MaxAddresses != 3 {
		t.Errorf("of labels: %+v", l)
	}
	if d := c.Discovery(); d.MaxAdjacencies != 4 {
		t.Errorf("of discovery: %+v", d)
	}
}

// TestFilters: the first rule that speaks of a prefix decides.
func TestFilters(t *testing.T) {
	c, err := load(t, `router_id = "10.0.0.1"
interfaces = ["eth1"]
[labels]
advertise = [{prefix = "10.9.0.0/16", min_length = 32}, {prefix = "0.0.0.0/0", peer = "2.2.2.2", deny = true}, {prefix = "0.0.0.0/0"}]
`)
	if err != nil {
		t.Fatal(err)
	}
	two, three := wire.Identifier{LSR: wire.LSRID{2, 2, 2, 2}}, wire.Identifier{LSR: wire.LSRID{3, 3, 3, 3}}
	for _, x := range []struct {
		prefix string
		to     wire.Identifier
		want   bool
	}{{"10.9.1.1/32", two, true}, {"10.9.1.0/24", two, false}, {"10.9.1.0/24", three, true}, {"2001:db8::/32", three, false}} {
		if got := c.LabelsConfig().Advertise(netip.MustParsePrefix(x.prefix), x.to); got != x.want {
			t.Errorf("%s to %v: %v", x.prefix, x.to, got)
		}
	}
}

func TestWhatCannotWork(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "router_id",
		"router_id = \"10.0.0.1\"": "no interfaces, and no targeted neighbor",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\", \"a\"]":                                                             "there twice",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[hello]\nlink_hold = \"1500ms\"":                                   "whole seconds",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[labels]\nfirst = 3":                                               "choose a range within 16",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[labels]\ncontrol = \"loose\"":                                     `want "independent" or "ordered"`,
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[labels]\nroute_protocol = 0":                                      "want 1 to 255",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[[neighbor]]\nmd5_secret_file = \"/x\"":                            "whose secret",
		"router_id = \"10.0.0.1\"\ntransport_ipv6 = \"fe80::1\"\ninterfaces = [\"a\"]":                                      "global IPv6",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[labels]\nallocate = [{prefix = \"10.0.0.1/8\"}]":                  "without bits behind",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[users]\nupstream = [\"10.0.0.1\"]":                                "users.upstream: 10.0.0.1",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[[users.accept]]\nvips = [\"192.0.2.80/32\"]":                      "users.accept: from invalid IP",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[[users.accept]]\nfrom = \"10.0.0.2\"\nvips = [\"192.0.2.80/24\"]": "192.0.2.80/24 is no prefix",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[forwarding]\ntables = \"some\"":                                   `want "auto", "kernel" or "none"`,
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[forwarding]\ntables = \"none\"":                                   "nothing is forwarded",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[forwarding]\nfast_path = true\nedge = [\"a\"]":                    "none of those that LDP runs on",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[forwarding]\ntunnels_from = [\"10.0.0.0/8\"]":                     "set forwarding.fast_path",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[forwarding]\ntunnels_from = [\"10.0.0.1/8\"]":                     "without bits behind",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[servers]\ntunnel = \"udp\"":                                       "the kernel's tables have none: set forwarding.fast_path",
		"router_id = \"10.0.0.1\"\n[servers]\ntunnel = \"gre\"":                                                             `servers.tunnel "gre": want "udp"`,
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[[neighbor]]\ntunnel = \"udp\"":                                    "to which address?",
		"router_id = \"10.0.0.1\"\n[[neighbor]]\ntargeted = \"10.0.0.2\"\ntunnel = \"udp\"":                                 "the kernel's tables have none",
		"router_id = \"10.0.0.1\"\n[[neighbor]]\ntargeted = \"10.0.0.2\"\ntunnel = \"ipip\"":                                `tunnel "ipip": want "udp"`,
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[forwarding]\ntunnel_mtu = 575":                                    "want 576 to 65535",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[control]\ngroup = \"239.80.255.1\"":                               "control: 0 interfaces",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[control]\ngroup = \"10.0.0.1\"\ninterfaces = [\"a\"]":             "want an IPv4 multicast address",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[control]\nidentity = \"/x\"":                                      "identity",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[limits]\nbindings = 0":                                            "limits.bindings is 0: want 1 to 10000000",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[limits]\nadjacencies = 100001":                                    "limits.adjacencies is 100001",
		"router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n[session]\nhop_count_limit = 256":                                  "session.hop_count_limit is 256",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestSecrets: one line each, which nobody else may read.
func TestSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "md5")
	c := Config{Neighbors: []Neighbor{{RouterID: netip.MustParseAddr("2.2.2.2"), SecretFile: path}, {RouterID: netip.MustParseAddr("3.3.3.3")}}}
	for text, want := range map[string]string{"tell nobody\n": "tell nobody", strings.Repeat("x", 80): strings.Repeat("x", 80), "with\r\n": "with"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if all, err := c.Secrets(); err != nil || len(all) != 1 || all[c.Neighbors[0].RouterID] != want {
			t.Errorf("%q: %v, %v", text, all, err)
		}
	}
	for _, text := range []string{"", "\n", "two\nlines\n", strings.Repeat("x", 81)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Secrets(); err == nil || !strings.Contains(err.Error(), "neighbor 2.2.2.2") || !strings.Contains(err.Error(), "1 to 80 bytes") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := os.WriteFile(path, []byte("good\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Secrets(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("others can read it: %v", err)
	}
}
