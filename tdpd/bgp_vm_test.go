package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// labelled is s1 eth0--c r1 a--a f b--a r2 c--eth0 s2: f has FRR's bgpd, r1 and r2 have tdpd, and nobody speaks LDP with anybody. No router has a route to
// a server but by what BGP tells.
type labelled struct {
	*rig
	dir string // of FRR's sockets
}

const (
	server1, server2 = "10.8.0.80", "10.9.0.80"
	labelsOfFRR      = `log stdout
router bgp 65001
 bgp router-id 10.0.12.2
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp graceful-restart
 neighbor 10.0.12.1 remote-as 4200000001
 neighbor 10.0.23.3 remote-as 4200000002
 neighbor 10.0.12.1 advertisement-interval 0
 neighbor 10.0.23.3 advertisement-interval 0
 address-family ipv4 labeled-unicast
  neighbor 10.0.12.1 activate
  neighbor 10.0.23.3 activate
 exit-address-family
`
)

func newLabelled(t *testing.T) *labelled {
	t.Helper()
	n := testnet.NewMPLS(t)
	l := &labelled{rig: &rig{t: t, dir: t.TempDir(), nodes: map[string]*testnet.Node{}, daemons: map[string]*testnet.Process{}, whole: map[string]string{}}}
	for _, name := range []string{"s1", "r1", "f", "r2", "s2"} {
		l.nodes[name] = n.Node(name)
		for _, key := range []string{"net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"} {
			key, value, _ := strings.Cut(key, "=")
			l.nodes[name].Sysctl(key, value)
		}
	}
	n.Link(l.nodes["s1"], "eth0", server1+"/24", l.nodes["r1"], "c", "10.8.0.1/24")
	n.Link(l.nodes["r1"], "a", "10.0.12.1/24", l.nodes["f"], "a", "10.0.12.2/24")
	n.Link(l.nodes["f"], "b", "10.0.23.2/24", l.nodes["r2"], "a", "10.0.23.3/24")
	n.Link(l.nodes["r2"], "c", "10.9.0.3/24", l.nodes["s2"], "eth0", server2+"/24")
	l.nodes["s1"].Route("0.0.0.0/0", "10.8.0.1")
	l.nodes["s2"].Route("0.0.0.0/0", "10.9.0.3")
	for key, value := range map[string]string{"net.mpls.platform_labels": "100000", "net.mpls.conf.a.input": "1", "net.mpls.conf.b.input": "1"} {
		l.nodes["f"].Sysctl(key, value)
	}
	l.frr() // before others compete with it for an emulated machine
	for name, is := range map[string]struct{ id, as, neighbor string }{
		"r1": {"10.0.12.1", "4200000001", "10.0.12.2"}, "r2": {"10.0.23.3", "4200000002", "10.0.23.2"},
	} {
		l.whole[name] = fmt.Sprintf(`
router_id = %q
interfaces = ["a"]
[forwarding]
tables = "kernel"
[servers]
addresses = [%q, %q]
[bgp]
as = %s
[bgp.announce]
settle = "1s"
[[bgp.neighbors]]
address = %q
as = 65001
connect_retry = "1s"
families = ["ipv4-labelled"]
import = "servers"
[[bgp.policies]]
name = "servers"
rules = [{ prefixes = ["10.8.0.0/15 ge 32"] }]
`, is.id, server1, server2, is.as, is.neighbor)
		l.start(name)
		l.eventually(func() bool { _, ok := l.ask(name, ""); return ok }, name, " answers")
	}
	return l
}

// frr starts zebra and bgpd in f.
func (l *labelled) frr() {
	l.t.Helper()
	l.dir = filepath.Join("/run/frr", l.nodes["f"].Name())
	u, err := user.Lookup("frr")
	if err != nil {
		l.t.Fatalf("%v: tools/setup test installs FRR", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := errors.Join(os.MkdirAll(l.dir, 0o755), os.Chown(l.dir, uid, gid)); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { os.RemoveAll(l.dir) })
	for _, d := range []struct{ name, config, listens string }{{"zebra", "log stdout\n", "zserv.api"}, {"bgpd", labelsOfFRR, "bgpd.vty"}} {
		path := filepath.Join(l.dir, d.name+".conf")
		if err := os.WriteFile(path, []byte(d.config), 0o644); err != nil {
			l.t.Fatal(err)
		}
		l.nodes["f"].Start(filepath.Join("/usr/lib/frr", d.name), "-N", l.nodes["f"].Name(), "-f", path, "-i", filepath.Join(l.dir, d.name+".pid"), "--vty_socket", l.dir)
		l.eventually(func() bool { _, err := os.Stat(filepath.Join(l.dir, d.listens)); return err == nil }, d.name, " listens")
	}
}

func (l *labelled) eventually(cond func() bool, what ...any) {
	l.t.Helper()
	testnet.Eventually(l.t, 3*time.Minute, cond, what...)
}

// Routes as iproute2 prints them.
var (
	pushes = regexp.MustCompile(`encap mpls +(\d+) via ([0-9.]+)`)
	swaps  = regexp.MustCompile(`(?m)^(\d+) as to (\d+) via inet ([0-9.]+)`)
	pops   = regexp.MustCompile(`(?m)^(\d+) via inet ([0-9.]+)`)
)

// way is a tree as the three kernels have it: the label that the first one pushes, and that into which FRR's swaps it, which the last one pops.
type way struct{ first, second string }

// to is the way from a router by FRR to a server behind another one; false: it is not whole.
func (l *labelled) to(from, last, server, towardF, towardLast string) (w way, ok bool) {
	l.t.Helper()
	push := pushes.FindStringSubmatch(l.run(from, "ip", "route", "show", server))
	if push == nil || push[2] != towardF {
		return way{}, false
	}
	w.first = push[1]
	for _, swap := range swaps.FindAllStringSubmatch(l.run("f", "ip", "-f", "mpls", "route"), -1) {
		if swap[1] == w.first && swap[3] == towardLast {
			w.second = swap[2]
		}
	}
	for _, pop := range pops.FindAllStringSubmatch(l.run(last, "ip", "-f", "mpls", "route"), -1) {
		ok = ok || pop[1] == w.second && pop[2] == server
	}
	return w, ok
}

// TestVMLabelsByBGPAlone: what r1 and r2 tell with labels FRR's kernel swaps, and what FRR tells their kernels push; pings and a transfer between servers take it,
// with the label of each link and none at the ends. A router that is killed and started again, as one that has restarted, loses nobody's way; one that
// stops takes its labels from FRR.
func TestVMLabelsByBGPAlone(t *testing.T) {
	l := newLabelled(t)
	var there, back way
	whole := func() bool {
		var ok1, ok2 bool
		there, ok1 = l.to("r1", "r2", server2, "10.0.12.2", "10.0.23.3")
		back, ok2 = l.to("r2", "r1", server1, "10.0.23.2", "10.0.12.1")
		return ok1 && ok2
	}
	l.eventually(whole, "labels in all kernels")
	captures := map[string]*testnet.Process{}
	for _, link := range []string{"r1 c", "f a", "f b", "r2 c"} {
		node, iface, _ := strings.Cut(link, " ")
		p := l.nodes[node].Start("tcpdump", "-l", "-n", "-v", "-i", iface, "icmp or tcp or mpls")
		l.eventually(func() bool { return strings.Contains(p.Output(), "listening on") }, "a capture")
		captures[link] = p
	}
	l.ping("converged")
	l.transfer(1 << 20)
	for link, labels := range map[string][2]string{"r1 c": {}, "f a": {there.first, back.second}, "f b": {there.second, back.first}, "r2 c": {}} {
		l.took(link, captures[link], server2, labels[0])
		l.took(link, captures[link], server1, labels[1])
	}

	l.daemons["r2"].Signal(unix.SIGKILL)
	_ = l.daemons["r2"].Wait()
	l.ping("r2 is dead")
	l.start("r2")
	before := there
	l.eventually(func() bool { _, ok := l.ask("r2", ""); return ok && whole() }, "r2 is back")
	l.ping("r2 is back")
	if there != before {
		t.Errorf("the way is %v, and was %v", there, before)
	}

	l.daemons["r2"].Signal(unix.SIGTERM)
	if err := l.daemons["r2"].Wait(); err != nil {
		t.Errorf("r2 ends with %v", err)
	}
	if out := l.run("r2", "ip", "-f", "mpls", "route"); out != "" {
		t.Errorf("r2 leaves\n%s", out)
	}
	l.eventually(func() bool {
		return !strings.Contains(l.run("f", "ip", "-f", "mpls", "route"), "10.0.23.3") && l.run("r1", "ip", "route", "show", server2) == ""
	}, "its labels go from FRR and from r1")
}

func (l *labelled) ping(when string) {
	l.t.Helper()
	if out, err := l.nodes["s1"].Run("ping", "-c", "3", "-i", "0.2", "-W", "2", server2); err != nil {
		l.t.Errorf("%s: %v\n%s", when, err, out)
	}
}

// transfer sends bytes over TCP from s1 to s2.
func (l *labelled) transfer(size int) {
	l.t.Helper()
	listener, err := l.nodes["s2"].Listen("tcp", server2+":5000")
	if err != nil {
		l.t.Fatal(err)
	}
	defer listener.Close()
	got := testnet.Received(listener)
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	var c net.Conn
	err = l.nodes["s1"].Do(func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, size)); err != nil {
		l.t.Error(err)
	}
	c.Close()
	if n := <-got; n != int64(size) {
		l.t.Errorf("%d bytes came of %d", n, size)
	}
}

// A packet as tcpdump has it, with its label, if there is one; and the lines on which it goes on.
var (
	labelsSeen = regexp.MustCompile(`(?:MPLS \(label (\d+)[^)]*\) +)?(?:IP )?\(tos`)
	goesOn     = regexp.MustCompile(`\n[ \t]+`)
)

// took says that packets to a server went by a link with this label, and no other; empty: without one.
func (l *labelled) took(link string, capture *testnet.Process, server, label string) {
	l.t.Helper()
	var pings, segments int
	defer func() {
		l.t.Logf("%s: to %s with label %q: %d pings, %d segments", link, server, label, pings, segments)
	}()
	l.eventually(func() bool {
		pings, segments = 0, 0
		for text := range strings.SplitSeq(goesOn.ReplaceAllString(capture.Output(), " "), "\n") {
			m := labelsSeen.FindStringSubmatch(text)
			switch {
			case m == nil || !strings.Contains(text, "> "+server):
			case m[1] != label:
				l.t.Fatalf("%s: a packet with label %q, want %q: %s", link, m[1], label, text)
			case strings.Contains(text, "ICMP echo"):
				pings++
			case strings.Contains(text, "Flags ["):
				segments++
			}
		}
		return pings >= 3 && segments >= 5 // large ones, on links of veth
	}, "packets to ", server, " on ", link, " with label ", label)
}
