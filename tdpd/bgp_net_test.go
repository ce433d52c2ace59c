package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/manycast/manycast/internal/peercred"
	"github.com/manycast/manycast/internal/testnet"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// peering is r1 a--a p: p has Debian's gobgpd.
type peering struct{ *rig }

// neighborOf is r1 in p's configuration.
const neighborOf = `
[global.config]
as = 65001
router-id = "10.0.1.2"
[[neighbors]]
[neighbors.config]
neighbor-address = "10.0.1.1"
peer-as = 4200000001
[neighbors.graceful-restart.config]
enabled = true
restart-time = 60
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "ipv4-unicast"
[neighbors.afi-safis.mp-graceful-restart.config]
enabled = true
`

func newPeering(t *testing.T, bgp string) *peering {
	t.Helper()
	n := testnet.New(t)
	p := &peering{&rig{t: t, dir: t.TempDir(), nodes: map[string]*testnet.Node{}, daemons: map[string]*testnet.Process{}, caps: ",+bpf,+net_raw", whole: map[string]string{}}}
	for _, name := range []string{"r1", "p"} {
		p.nodes[name] = n.Node(name)
	}
	r1 := p.nodes["r1"]
	r1.Address("lo", "1.1.1.1/32")
	n.Link(r1, "a", "10.0.1.1/24", p.nodes["p"], "a", "10.0.1.2/24")
	p.whole["r1"] = fmt.Sprintf(`
router_id = "1.1.1.1"
interfaces = ["a"]
[forwarding]
tables = "none"
fast_path = true
bpffs = %q
[bgp]
as = 4200000001
router_id = "10.0.1.1"
restart = "60s"
%s
[[bgp.neighbors]]
address = "10.0.1.2"
as = 65001
connect_retry = "1s"
import = "all"
[[bgp.policies]]
name = "all"
rules = [{}]
`, filepath.Join(n.BPFFS(), "r1"), bgp)
	p.gobgpd("p", neighborOf)
	return p
}

func (p *peering) gobgpd(node, config string) {
	p.t.Helper()
	path := filepath.Join(p.dir, node+"-gobgpd.toml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.nodes[node].Start("gobgpd", "-f", path, "-p", "--pprof-disable", "--api-hosts", "127.0.0.1:50051")
	p.eventually(func() bool { _, err := p.nodes[node].Run("gobgp", "global"); return err == nil }, "gobgpd of ", node)
}

func (p *peering) eventually(cond func() bool, what ...any) {
	p.t.Helper()
	testnet.Eventually(p.t, 40*time.Second, cond, what...)
}

// rib is what p's gobgpd has.
func (p *peering) rib() string {
	p.t.Helper()
	out, err := p.nodes["p"].Run("gobgp", "global", "rib")
	if err != nil {
		p.t.Fatal(err, out)
	}
	return out
}

// about asks r1 about BGP; false: it does not answer, or by an error, which it gives.
func (p *peering) about(request string) (*tdpdv1.BGPAnswer, string, bool) {
	p.t.Helper()
	c, err := net.Dial("unix", filepath.Join(p.state("r1"), "status.sock"))
	if err != nil {
		return nil, err.Error(), false
	}
	defer c.Close()
	_, _ = fmt.Fprintf(c, `{"bgp": {%s}}`, request)
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		return nil, err.Error(), false
	}
	text, err := io.ReadAll(c)
	answer := &tdpdv1.Answer{}
	if err != nil || protojson.Unmarshal(text, answer) != nil {
		return nil, string(text), false
	}
	return answer.GetBgp(), "", true
}

// tell has r1 do something about BGP, and gives what it says of it.
func (p *peering) tell(request string) string {
	p.t.Helper()
	answer, why, ok := p.about(request)
	if !ok {
		return why
	}
	return answer.GetDone().GetWhat()
}

func (p *peering) neighbor() *tdpdv1.BGPNeighbor {
	p.t.Helper()
	answer, _, ok := p.about(`"neighbors": {}`)
	if !ok || len(answer.GetNeighbors().GetNeighbors()) != 1 {
		return nil
	}
	return answer.GetNeighbors().GetNeighbors()[0]
}

func (p *peering) established() {
	p.t.Helper()
	p.eventually(func() bool { return p.neighbor().GetState() == "established" }, "the session")
}

// speaker is the process that has the socket.
func (p *peering) speaker() int {
	p.t.Helper()
	pid, err := peercred.Listener(filepath.Join(p.dir, "r1-run", "speaker", "api.sock"))
	if err != nil {
		return 0
	}
	return pid
}

// TestNetBGP: tdpd starts its speaker; what is announced by hand is heard, by restarts, kills and all, until it is withdrawn, or tdpd stops.
func TestNetBGP(t *testing.T) {
	p := newPeering(t, "")
	p.start("r1")
	p.established()
	if w := p.tell(`"announce": {"prefix": "192.0.2.80/32", "med": 7, "communities": ["graceful-shutdown"]}`); w != "announced" {
		t.Fatal(w)
	}
	heard := func() bool {
		text := p.rib()
		return strings.Contains(text, "192.0.2.80/32") && strings.Contains(text, "{Med: 7}") && strings.Contains(text, "{Communities: planned-shut}")
	}
	p.eventually(heard, "the VIP at the neighbor")
	if out, err := p.nodes["p"].Run("gobgp", "global", "rib", "add", "10.70.0.0/16"); err != nil {
		t.Fatal(err, out)
	}
	p.eventually(func() bool {
		answer, _, ok := p.about(`"routes": {"family": "ipv4-unicast", "prefix": "10.70.0.0/16"}`)
		paths := answer.GetRoutes().GetPaths()
		return ok && len(paths) == 1 && paths[0].GetNeighbor() == "10.0.1.2" && paths[0].GetNextHop() == "10.0.1.2"
	}, "the neighbor's route")
	learned := func() bool {
		answer, _, _ := p.about(`"neighbors": {}`)
		return answer.GetNeighbors().GetLearned() == 1
	}
	p.eventually(learned, "it is taken")

	// tdpd is killed: its speaker goes on, and the next tdpd with it.
	speaker, since := p.speaker(), p.neighbor().GetSinceMs()
	p.daemons["r1"].Signal(unix.SIGKILL)
	testnet.Eventually(t, 20*time.Second, func() bool { return unix.Kill(p.daemons["r1"].PID(), 0) != nil || zombie(p.daemons["r1"].PID()) }, "the end of tdpd")
	if !heard() || p.speaker() != speaker {
		t.Error("what was announced, or the speaker, went with tdpd")
	}
	p.start("r1")
	p.eventually(learned, "the neighbor's route is taken again")
	if n := p.neighbor(); n.GetState() != "established" || n.GetSinceMs() < since || p.speaker() != speaker {
		t.Errorf("the session has not gone on: %v", n)
	}

	// The speaker is killed: another one says the same.
	if err := unix.Kill(speaker, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.eventually(func() bool { now := p.speaker(); return now != 0 && now != speaker }, "another speaker")
	if !heard() {
		t.Error("the neighbor has not kept what it was told")
	}
	p.established()
	p.eventually(heard, "the VIP, told again")

	if w := p.tell(`"clear": {"neighbor": "10.0.1.2", "soft": true}`); w != "cleared" {
		t.Error(w)
	}
	if w := p.tell(`"withdraw": {"prefix": "192.0.2.80/32"}`); w != "withdrawn" {
		t.Error(w)
	}
	p.eventually(func() bool { return !strings.Contains(p.rib(), "192.0.2.80") }, "the VIP is withdrawn")
	if w := p.tell(`"announce": {"prefix": "192.0.2.81/32"}`); w != "announced" {
		t.Error(w)
	}
	p.eventually(func() bool { return strings.Contains(p.rib(), "192.0.2.81/32") }, "another VIP")
	last := p.speaker()
	p.daemons["r1"].Signal(unix.SIGTERM)
	p.eventually(func() bool {
		return !strings.Contains(p.rib(), "192.0.2.81") && (unix.Kill(last, 0) != nil || zombie(last))
	}, "nothing is announced, and nobody speaks, after a clean stop")
}

// zombie says whether a process has ended and waits for its parent.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(text), ") ")
	return err != nil || strings.HasPrefix(state, "Z")
}

// TestNetBGPForeign: tdpd has a gobgpd that runs already, at a TCP port, announce what it wants, and takes that back when it stops. When it dies gobgpd goes on, and the next tdpd takes back
// what it hears no more of.
func TestNetBGPForeign(t *testing.T) {
	p := newPeering(t, "api = \"127.0.0.1:50051\"\ndeferral = \"5s\"")
	p.gobgpd("r1", "[global.config]\nas = 4200000001\nrouter-id = \"10.0.1.1\"\n")
	p.start("r1")
	p.established()
	if w := p.tell(`"announce": {"prefix": "192.0.2.80/32"}`); w != "announced" {
		t.Fatal(w)
	}
	p.eventually(func() bool { return strings.Contains(p.rib(), "192.0.2.80/32") }, "the VIP at the neighbor")
	if pid := p.speaker(); pid != 0 {
		t.Errorf("a speaker of its own runs, too: %d", pid)
	}
	if w := p.tell(`"announce": {"prefix": "192.0.2.81/32"}`); w != "announced" {
		t.Fatal(w)
	}
	p.eventually(func() bool { return strings.Contains(p.rib(), "192.0.2.81/32") }, "another VIP")
	since := p.neighbor().GetSinceMs()
	p.daemons["r1"].Signal(unix.SIGKILL)
	_ = p.daemons["r1"].Wait()
	if err := os.Remove(filepath.Join(p.state("r1"), "announced")); err != nil { // as if it were a service's, which is there no more
		t.Fatal(err)
	}
	if text := p.rib(); !strings.Contains(text, "192.0.2.80/32") || !strings.Contains(text, "192.0.2.81/32") {
		t.Errorf("what gobgpd announces went with tdpd:\n%s", text)
	}
	p.start("r1")
	p.eventually(func() bool { return p.tell(`"announce": {"prefix": "192.0.2.80/32"}`) == "announced" }, "the next tdpd")
	p.eventually(func() bool { return !strings.Contains(p.rib(), "192.0.2.81") }, "one VIP is withdrawn")
	if n := p.neighbor(); n.GetState() != "established" || n.GetSinceMs() < since || !strings.Contains(p.rib(), "192.0.2.80/32") {
		t.Errorf("the session, or the other VIP, has not gone on: %v", n)
	}
	p.daemons["r1"].Signal(unix.SIGTERM)
	p.eventually(func() bool { return !strings.Contains(p.rib(), "192.0.2.80") }, "nothing is announced")
	p.eventually(func() bool {
		out, err := p.nodes["r1"].Run("gobgp", "neighbor")
		return err == nil && !strings.Contains(out, "10.0.1.2")
	}, "gobgpd has no neighbor of ours")
}
