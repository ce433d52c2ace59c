package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/testnet"
)

const frrDir = "/usr/lib/frr"

// frr is a router with FRR's zebra and bgpd.
type frr struct {
	r    *rig
	node *testnet.Node
	dir  string
	bgpd *testnet.Process
}

// frrConfig is what a test says of FRR's session with us.
type frrConfig struct {
	as       uint32   // 0: frrAS
	global   string   // lines of "router bgp"
	neighbor []string // of "neighbor ADDRESS"
	v6       []string // likewise, of a second session, by IPv6; nil: there is none
	families string   // address families, whole
	more     string   // outside
	bfdd     string   // configuration of bfdd; empty: there is none
}

func (c frrConfig) text() string {
	as := c.as
	if as == 0 {
		as = frrAS
	}
	var b strings.Builder
	fmt.Fprintf(&b, "log stdout\n%s\nrouter bgp %d\n bgp router-id %v\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n bgp graceful-restart\n%s", c.more, as, frr4, c.global)
	for _, n := range []struct {
		address any
		lines   []string
	}{{us4, c.neighbor}, {us6, c.v6}} {
		if n.address == us6 && c.v6 == nil {
			continue
		}
		fmt.Fprintf(&b, " neighbor %v remote-as %d\n neighbor %v timers 3 9\n neighbor %v timers connect 1\n neighbor %v advertisement-interval 0\n", n.address, uint32(ourAS), n.address, n.address, n.address)
		for _, l := range n.lines {
			fmt.Fprintf(&b, " neighbor %v %s\n", n.address, l)
		}
	}
	b.WriteString(c.families)
	return b.String()
}

// family is lines of one; those that begin with a dash are of the neighbor.
func family(name string, neighbor any, lines ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, " address-family %s\n  neighbor %v activate\n", name, neighbor)
	for _, l := range lines {
		if rest, is := strings.CutPrefix(l, "-"); is {
			l = fmt.Sprintf("neighbor %v %s", neighbor, rest)
		}
		fmt.Fprintf(&b, "  %s\n", l)
	}
	b.WriteString(" exit-address-family\n")
	return b.String()
}

// frr starts it. Its directory is where FRR looks for that of its name, and belongs to FRR's user.
func (r *rig) frr(c frrConfig) *frr {
	r.t.Helper()
	f := &frr{r: r, node: r.peer, dir: filepath.Join("/run/frr", r.peer.Name())}
	own(r.t, f.dir)
	r.t.Cleanup(func() { os.RemoveAll(f.dir) })
	f.start("zebra", "log stdout\n")
	if c.bfdd != "" {
		f.start("bfdd", c.bfdd)
	}
	f.bgpd = f.start("bgpd", c.text())
	return f
}

// own makes a directory of FRR's user.
func own(t testing.TB, dir string) {
	t.Helper()
	u, err := user.Lookup("frr")
	if err != nil {
		t.Fatalf("%v: tools/setup test installs FRR", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
}

// start starts a daemon with its configuration, and waits until it listens.
func (f *frr) start(daemon, config string) *testnet.Process {
	f.r.t.Helper()
	path := filepath.Join(f.dir, daemon+".conf")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		f.r.t.Fatal(err)
	}
	listens := filepath.Join(f.dir, map[string]string{"zebra": "zserv.api", "bgpd": "bgpd.vty", "bfdd": "bfdd.vty", "staticd": "staticd.vty"}[daemon])
	_ = os.Remove(listens)
	p := f.node.Start(filepath.Join(frrDir, daemon), "-N", f.node.Name(), "-f", path, "-i", filepath.Join(f.dir, daemon+".pid"), "--vty_socket", f.dir)
	f.r.eventually(func() bool { _, err := os.Stat(listens); return err == nil || p.Ended() }, daemon, " listens")
	if p.Ended() {
		f.r.t.Fatalf("%s: %s", daemon, p.Output())
	}
	return p
}

// vty has bgpd execute commands, and returns the answers.
func (f *frr) vty(commands ...string) string {
	f.r.t.Helper()
	return f.daemon("bgpd", commands...)
}

// daemon is vty of any daemon.
func (f *frr) daemon(name string, commands ...string) string {
	f.r.t.Helper()
	argv := []string{"vtysh", "--vty_socket", f.dir, "-d", name}
	for _, c := range commands {
		argv = append(argv, "-c", c)
	}
	out, err := f.node.Run(argv...)
	if err != nil {
		f.r.t.Fatalf("%q: %v: %s", commands, err, out)
	}
	return out
}

// configure enters lines below "router bgp".
func (f *frr) configure(lines ...string) {
	f.r.t.Helper()
	f.vty(append([]string{"configure terminal", fmt.Sprintf("router bgp %d", frrAS)}, lines...)...)
}

// route is a path that FRR has.
type route struct {
	Valid  bool   `json:"valid"`
	Stale  bool   `json:"stale"`
	Metric uint32 `json:"metric"`
	AsPath struct {
		String string `json:"string"`
	} `json:"aspath"`
	Community struct {
		String string `json:"string"`
	} `json:"community"`
	LargeCommunity struct {
		String string `json:"string"`
	} `json:"largeCommunity"`
	LocalPref *uint32 `json:"locPrf"`
	Label     uint32  `json:"remoteLabel"`
	NextHops  []struct {
		IP string `json:"ip"`
	} `json:"nexthops"`
}

// routes are the paths to a prefix: of "ipv4 unicast", say.
func (f *frr) routes(family string, prefix any) []route {
	f.r.t.Helper()
	var all struct{ Paths []route }
	text := f.vty(fmt.Sprintf("show bgp %s %v json", family, prefix))
	if err := json.Unmarshal([]byte(text), &all); err != nil && !strings.Contains(text, "not in table") {
		f.r.t.Fatalf("%v\n%s", err, text)
	}
	return all.Paths
}
