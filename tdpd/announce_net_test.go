package main

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// TestNetAnnounce: tdpd announces the VIP of a service when users are bound here and the server has a tree, softly at first; a drain takes it
// back, in order, and the sessions stay; without a server's tree it goes at once.
func TestNetAnnounce(t *testing.T) {
	p := newPeering(t, `
[bgp.announce]
vips = ["192.0.2.0/24"]
settle = "2s"
[servers]
addresses = ["10.0.1.80"]
`)
	p.start("r1")
	p.established()
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: alloc.Slots{By: alloc.Prefix, Bits: 1}, Servers: []string{"s"}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.80")},
		Owner: []uint16{0, 0}, Standby: []uint16{alloc.None, alloc.None},
	}
	bind := func() {
		t.Helper()
		p.say("r1", &tdpdv1.UserBinding{
			Service: "web", Vips: [][]byte{{192, 0, 2, 80}}, Allocation: alloc.ToProto("web", a), LifetimeMs: 120_000, HoldMs: 60_000,
		})
	}
	const soft = "planned-shut"
	vip := func() (there, isSoft bool) {
		for _, line := range strings.Split(p.rib(), "\n") {
			if strings.Contains(line, "192.0.2.80/32") {
				return true, strings.Contains(line, soft)
			}
		}
		return false, false
	}
	announced := func(request string) *tdpdv1.Announced {
		answer, ok := p.ask("r1", `{"announce": {`+request+`}}`)
		if !ok {
			t.Fatalf("%s does not answer", filepath.Base(p.state("r1")))
		}
		return answer.GetAnnounce()
	}
	if there, _ := vip(); there || announced("").GetPhase() != "entering" {
		t.Error("announced before users are bound")
	}
	bind()
	p.eventually(func() bool { there, isSoft := vip(); return there && isSoft }, "the VIP, softly")
	p.eventually(func() bool { there, isSoft := vip(); return there && !isSoft }, "the VIP, as it is to be")
	since := p.neighbor().GetSinceMs()

	if got := announced(`"drain": true`); got.GetPhase() != "leaving" || !got.GetDrained() {
		t.Errorf("%v", got)
	}
	p.eventually(func() bool { there, isSoft := vip(); return there && isSoft }, "the VIP, softly again")
	p.eventually(func() bool { there, _ := vip(); return !there }, "the VIP is withdrawn")
	p.eventually(func() bool { return announced("").GetPhase() == "out" }, "out")
	if got := announced(""); got.GetForced() || len(got.GetVips()) != 1 || got.GetVips()[0].GetAnnounced() || got.GetVips()[0].GetReach() != "reached" {
		t.Errorf("%v", got)
	}
	announced(`"back": true`)
	p.eventually(func() bool { there, isSoft := vip(); return there && !isSoft }, "the VIP, back")
	if n := p.neighbor(); n.GetState() != "established" || n.GetSinceMs() < since {
		t.Errorf("the session has not gone on: %v", n)
	}

	p.run("r1", "ip", "address", "delete", "10.0.1.1/24", "dev", "a") // with it goes the way to the server, and the session
	p.eventually(func() bool { return announced("").GetVips()[0].GetReach() == "no way to a server" }, "nobody is reached")
	p.run("r1", "ip", "address", "add", "10.0.1.1/24", "dev", "a")
	p.eventually(func() bool { there, _ := vip(); return there && announced("").GetVips()[0].GetFlaps() == 1 }, "the VIP, after a flap")
}

// kill kills r1's tdpd, not its speaker, and waits until it has let go of everything.
func (p *peering) kill() {
	p.t.Helper()
	p.daemons["r1"].Signal(unix.SIGKILL)
	_ = p.daemons["r1"].Wait()
}

// TestNetAnnounceGoesOn: a tdpd that is killed, and started again, leaves what neighbors have of its VIPs as it is; what it is to announce no more goes when it
// has had time to hear of it.
func TestNetAnnounceGoesOn(t *testing.T) {
	p := newPeering(t, `
deferral = "5s"
[bgp.announce]
vips = ["192.0.2.0/24"]
settle = "1s"
[servers]
addresses = ["10.0.1.80"]
`)
	p.start("r1")
	p.established()
	one := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: alloc.Slots{By: alloc.Prefix, Bits: 1}, Servers: []string{"s"}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.80")},
		Owner: []uint16{0, 0}, Standby: []uint16{alloc.None, alloc.None},
	}
	bind := func() {
		t.Helper()
		p.say("r1", &tdpdv1.UserBinding{Service: "web", Vips: [][]byte{{192, 0, 2, 80}}, Allocation: alloc.ToProto("web", one), LifetimeMs: 1000, HoldMs: 1000})
	}
	phase := func() string {
		answer, _ := p.ask("r1", `{"announce": {}}`)
		return answer.GetAnnounce().GetPhase()
	}
	bind()
	p.eventually(func() bool { bind(); return phase() == "in" && strings.Contains(p.rib(), "192.0.2.80/32") }, "the VIP")
	p.eventually(func() bool { return !strings.Contains(p.rib(), "planned-shut") }, "the VIP, as it is to be")
	monitor := p.nodes["p"].Start("gobgp", "monitor", "global", "rib")
	p.eventually(func() bool {
		_, _ = p.nodes["p"].Run("gobgp", "global", "rib", "add", "10.70.0.0/16")
		_, _ = p.nodes["p"].Run("gobgp", "global", "rib", "del", "10.70.0.0/16")
		return strings.Contains(monitor.Output(), "10.70.0.0/16")
	}, "the monitor")

	restart := func() {
		t.Helper()
		p.kill()
		p.start("r1")
		p.eventually(func() bool { return p.neighbor().GetState() == "established" }, "tdpd again")
	}
	restart()
	since := time.Now()
	p.eventually(func() bool { bind(); return phase() == "in" }, "the VIP, announced again")
	p.eventually(func() bool { bind(); return time.Since(since) > 6*time.Second }, "the end of deferral")
	if text := monitor.Output(); strings.Contains(text, "192.0.2.80") {
		t.Errorf("the neighbor has heard of the VIP:\n%s", text)
	}

	// The same with its speaker, as when the unit is restarted: the neighbor keeps the VIP until it is told again, softly at first.
	old := p.speaker()
	p.kill()
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.eventually(func() bool { return unix.Kill(old, 0) != nil || zombie(old) }, "the end of its speaker")
	p.start("r1")
	p.eventually(func() bool { _, is := p.ask("r1", `{"announce": {}}`); return is }, "tdpd again")
	p.eventually(func() bool { bind(); return phase() == "in" && p.neighbor().GetState() == "established" }, "the VIP, announced by another speaker")
	if text := monitor.Output(); strings.Contains(text, "DELROUTE] 192.0.2.80") {
		t.Errorf("the neighbor has lost the VIP:\n%s", text)
	}

	// Now nobody binds its users any more.
	restart()
	p.eventually(func() bool {
		return strings.Contains(monitor.Output(), "192.0.2.80") && !strings.Contains(p.rib(), "192.0.2.80")
	}, "the VIP is withdrawn")
}
