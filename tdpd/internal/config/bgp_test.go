package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgp/bfd"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
)

const least = "router_id = \"10.0.0.1\"\ninterfaces = [\"a\"]\n"

// TestReferenceBGP: what the reference file has as comments is as good as it says, and its values are the defaults where it says so.
func TestReferenceBGP(t *testing.T) {
	text, err := os.ReadFile("../../tdpd.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n[bgp]")
	rest, _, _ = strings.Cut(rest, "\n[bus]")
	file := filepath.Join(t.TempDir(), "md5")
	if err := os.WriteFile(file, []byte("tell nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rest = strings.ReplaceAll(strings.ReplaceAll(rest, "\n# ", "\n"), "/etc/manycast/10.0.1.2.md5", file)
	rest = strings.ReplaceAll(strings.ReplaceAll(rest, "\nas = 0 ", "\nas = 4200000001 "), "\n#  ", "\n")
	c, err := load(t, least+"[bgp]"+rest)
	if err != nil {
		t.Fatalf("%v in\n%s", err, rest)
	}
	d, err := c.Desired()
	if err != nil {
		t.Fatal(err)
	}
	one := func(n uint32) *uint32 { return &n }
	want := bgp.Desired{
		AS: 4_200_000_001, RouterID: netip.MustParseAddr("10.0.0.1"), Listen: []netip.Addr{}, Port: 179, VIPs: []netip.Prefix{}, Martians: bgppolicy.Martians(false),
		Restart: bgp.Restart{Time: 2 * time.Minute, Deferral: 10 * time.Second},
		Neighbors: []bgp.Neighbor{{
			Address: netip.MustParseAddr("10.0.1.2"), AS: 65001, Port: 179, Local: netip.MustParseAddr("10.0.1.1"), Password: "tell nobody", Hops: 1, Hold: 9 * time.Second,
			Keepalive: 3 * time.Second, ConnectRetry: 5 * time.Second, MaxPrefixes: 100_000, Families: []bgp.Family{bgp.IPv4Unicast}, Import: "labels",
		}},
		Policies: []bgp.Policy{{Name: "labels", Rules: []bgp.PolicyRule{
			{
				Prefixes: []bgp.PrefixRange{{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Least: 32, Most: 32}, {Prefix: netip.MustParsePrefix("2001:db8:9::/48"), Least: 128, Most: 128}},
				Families: []bgp.Family{bgp.IPv4Labelled, bgp.IPv6Labelled}, Set: bgp.PolicySet{LocalPref: one(200)},
			},
			{Communities: []bgp.Community{65001<<16 | 666}, Deny: true},
			{Set: bgp.PolicySet{MED: one(10), Prepend: 1, Add: []bgp.Community{bgp.GracefulShutdown}, Remove: []bgp.Community{65001<<16 | 1}}},
		}}},
	}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("%+v\nwant\n%+v", d, want)
	}
	watched := []bfd.Neighbor{{Hold: 9 * time.Second, Session: bfd.Session{
		Peer: d.Neighbors[0].Address, Local: d.Neighbors[0].Local, Transmit: 300 * time.Millisecond, Receive: 300 * time.Millisecond, Multiplier: 3,
	}}}
	if got := c.BGP.BFD(); !reflect.DeepEqual(got, watched) || c.BGP.BFDD != Default().BGP.BFDD {
		t.Errorf("%+v by %s, want %+v", got, c.BGP.BFDD, watched)
	}
	short := strings.NewReplacer("bfd = { transmit = \"300ms\", receive = \"300ms\", multiplier = 3 }", "bfd = {}", "port = 179\nlocal", "local", "hops = 1", "", "hold = \"9s\"", "", "keepalive = \"3s\"", "", "connect_retry = \"5s\"", "", "families = [\"ipv4-unicast\"] #", "#").Replace(rest)
	if c, err = load(t, least+"[bgp]"+short); err != nil {
		t.Fatal(err)
	}
	if d, err = c.Desired(); err != nil || !reflect.DeepEqual(d.Neighbors[0].Families, want.Neighbors[0].Families) || d.Neighbors[0].Hold != want.Neighbors[0].Hold {
		t.Errorf("defaults: %+v, %v", d.Neighbors, err)
	}
	if got := c.BGP.BFD(); !reflect.DeepEqual(got, watched) {
		t.Errorf("defaults: %+v", got)
	}
}

// TestOwnPrefixes: nobody may tell what the file names as VIPs, or covers them.
func TestOwnPrefixes(t *testing.T) {
	c, err := load(t, least+"[bgp]\nas = 65000\nvips = [\"192.0.2.80/32\"]\n[bgp.announce]\nvips = [\"198.51.100.0/26\"]\ncovers = [\"198.51.100.0/24\", \"2001:db8:80::/48\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Desired()
	want := []netip.Prefix{netip.MustParsePrefix("192.0.2.80/32"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:80::/48")}
	if err != nil || !slices.Equal(d.VIPs, want) {
		t.Errorf("%v, %v, want %v", d.VIPs, err, want)
	}
}

func TestBadBGP(t *testing.T) {
	neighbor := func(lines string) string {
		return "[bgp]\nas = 1\n[[bgp.neighbors]]\naddress = \"10.0.0.2\"\nas = 2\n" + lines
	}
	policy := func(rule string) string {
		return "[bgp]\nas = 1\n[[bgp.policies]]\nname = \"p\"\nrules = [" + rule + "]\n"
	}
	for text, want := range map[string]string{
		"[bgp]\napi = \"a:1\"":                                                                     "which AS is this router in",
		"[bgp]\nas = 1\napi = \"here\"":                                                            "want host:port",
		"[bgp]\nas = 1\nas4 = true":                                                                "unknown key bgp.as4",
		"[bgp]\nas = 4294967296":                                                                   "out of range",
		"[bgp]\nas = 1\nrestart = \"4096s\"":                                                       "bgp.restart is 1h8m16s",
		"[bgp]\nas = 1\nrestart = \"1500ms\"":                                                      "whole seconds",
		"[bgp]\nas = 1\nrestart = \"0s\"\nlong_lived = \"1h\"":                                     "long_lived without restart",
		"[bgp]\nas = 1\nport = 65536":                                                              "bgp.port",
		"[bgp]\nas = 1\nmost = 0":                                                                  "bgp.most",
		"[bgp]\nas = 1\nrouter_id = \"::1\"":                                                       "bgp.router_id",
		"[bgp]\nas = 1\nvips = [\"10.0.0.1/8\"]":                                                   "bgp.vips",
		"[bgp]\nas = 1\n[[bgp.neighbors]]\naddress = \"10.0.0.2\"":                                 "which AS is it in",
		"[bgp]\nas = 1\n[[bgp.neighbors]]\naddress = \"fe80::1\"\nas = 1":                          "no link-local",
		neighbor("[[bgp.neighbors]]\naddress = \"10.0.0.2\"\nas = 3"):                              "10.0.0.2 is there twice",
		neighbor("hold = \"2s\""):                                                                  "hold is 2s",
		neighbor("hold = \"9s\"\nkeepalive = \"4s\""):                                              "a third of hold",
		neighbor("connect_retry = \"500ms\""):                                                      "connect_retry",
		neighbor("hops = 256"):                                                                     "hops is 256",
		neighbor("local = \"2001:db8::1\""):                                                        "of the same family",
		neighbor("families = [\"ipv4\"]"):                                                          "address family",
		neighbor("families = [\"ipv4-unicast\", \"ipv4-unicast\"]"):                                "twice",
		neighbor("import = \"none\""):                                                              "no policy \"none\"",
		neighbor("max_prefixes = -1"):                                                              "out of range",
		policy("{ prefixes = [\"10.0.0.0/8 ge\"] }"):                                               "want 10.0.0.0/8",
		policy("{ prefixes = [\"10.0.0.0/8 le 7\"] }"):                                             "bgp policy p",
		policy("{ prefixes = [\"10.0.0.0/8 gt 9\"] }"):                                             "want 10.0.0.0/8",
		policy("{ prefixes = [\"\"] }"):                                                            "one is empty",
		policy("{ prepend = 32 }"):                                                                 "prepend 32",
		policy("{ local_pref = 0 }"):                                                               "at least 1",
		policy("{ deny = true, med = 1 }"):                                                         "changes nothing",
		policy("{ communities = [\"65536:1\"] }"):                                                  "community",
		neighbor("bfd = { transmit = \"9ms\" }"):                                                   "bfd.transmit is 9ms",
		neighbor("bfd = { receive = \"61s\" }\nhold = \"999s\""):                                   "bfd.receive is 1m1s",
		neighbor("bfd = { multiplier = 1 }"):                                                       "bfd.multiplier is 1",
		neighbor("bfd = { receive = \"3s\" }"):                                                     "want less than hold",
		neighbor("bfd = {}\nhops = 2"):                                                             "say local",
		"[bgp]\nas = 1\nbfdd = \"x\"\n[[bgp.neighbors]]\naddress = \"10.0.0.2\"\nas = 2\nbfd = {}": "bgp.bfdd",
		"[bgp]\nas = 1\n[[bgp.policies]]":                                                          "want each once",
	} {
		if _, err := load(t, least+text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for dir, want := range map[string]string{"/run/a,b": "without a comma", "/run/" + strings.Repeat("a", 86): "has 108 bytes, and may have 107"} {
		file := fmt.Sprintf("runtime_dir = %q\n%s[bgp]\nas = 1\n", dir, least)
		if _, err := load(t, file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("runtime_dir %q: %v, want %q", dir, err, want)
		}
		if _, err := load(t, file+"api = \"127.0.0.1:50051\"\n"); err != nil {
			t.Errorf("runtime_dir %q, where a gobgpd speaks: %v", dir, err)
		}
	}
	if _, err := load(t, fmt.Sprintf("runtime_dir = %q\n%s[bgp]\nas = 1\n", "/run/"+strings.Repeat("a", 85), least)); err != nil {
		t.Error(err)
	}
	c, err := load(t, least+neighbor("password_file = \"/nowhere\""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Desired(); err == nil || !strings.Contains(err.Error(), "neighbor 10.0.0.2: password_file") {
		t.Error(err)
	}
}
