package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/testnet"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// TestNetUsersOfAServer, of both families: three routers in kernels without MPLS. A director at the last one says whose users go to which server; the first one,
// which hears it by way of the second one, sends them along the server's tree, and the server has them though no router has a route to the
// VIP. All daemons are killed and started again, in turn, while a user asks.
func TestNetUsersOfAServer(t *testing.T) {
	n := testnet.New(t)
	r := newRigIn(t, n)
	r.nodes["u"] = n.Node("u")
	n.Link(r.nodes["u"], "eth0", "10.1.0.11/24", r.nodes["r1"], "e", "10.1.0.1/24")
	r.nodes["u"].Route("0.0.0.0/0", "10.1.0.1")
	r.nodes["r2"].Route("10.1.0.0/24", "10.0.12.1")
	r.nodes["r3"].Route("10.1.0.0/24", "10.0.23.2")
	r.nodes["s"].Address("lo", "192.0.2.80/32")
	r.ipv6()
	if err := errors.Join(r.nodes["u"].WholeChecksums("eth0"), r.nodes["u"].TakesXDP("eth0"), r.nodes["s"].TakesXDP("eth0")); err != nil {
		t.Fatal(err)
	}
	bpffs := n.BPFFS()
	fast := func(name, more string) string {
		return fmt.Sprintf("[forwarding]\ntables = \"none\"\nfast_path = true\nbpffs = %q\n%s", filepath.Join(bpffs, name), more)
	}
	r.caps = ",+bpf"
	r.extra = "[servers]\naddresses = [\"10.9.0.80\"]\n[restart]\nreconnect = \"20s\"\nrecovery = \"20s\"\n"
	r.of = map[string]string{
		"r1": fast("r1", "edge = [\"e\"]\n[[users.accept]]\nfrom = \"2.2.2.2\"\nvips = [\"192.0.2.0/24\", \"2001:db8::/64\"]\n"),
		"r2": fast("r2", "[users]\nupstream = [\"1.1.1.1\"]\n[[users.accept]]\nfrom = \"3.3.3.3\"\n"),
		"r3": fast("r3", "[users]\nupstream = [\"2.2.2.2\"]\n"),
	}
	for _, name := range routers {
		r.start(name)
	}
	r.operational("r2", 2)
	r.tree()
	r.bind("r3")
	var floods []*testnet.Process
	for _, vip := range []string{"192.0.2.80", "2001:db8::80"} {
		testnet.Eventually(t, 10*time.Second, func() bool {
			_, err := r.nodes["u"].Run("ping", "-c", "1", "-W", "1", vip)
			return err == nil
		}, "told: an answer of ", vip)
		floods = append(floods, r.nodes["u"].Start("ping", "-i", "0.01", "-W", "1", "-q", vip))
	}
	for _, name := range []string{"r1", "r2", "r3"} {
		r.daemons[name].Signal(unix.SIGKILL)
		r.daemons[name].Wait()
		r.operational(map[string]string{"r1": "r2", "r2": "r1", "r3": "r2"}[name], map[string]int{"r1": 1, "r2": 0, "r3": 1}[name])
		r.start(name)
		r.operational("r2", 2)
		r.tree()
		if name == "r3" { // a director says all of it again when its router has restarted
			r.bind("r3")
		}
		testnet.Eventually(t, 10*time.Second, func() bool {
			return r.steered("r1") == "1.1" && r.steered("r2") == "1.1" && r.steered("r3") == "1.1"
		}, "what holds after ", name)
	}
	testnet.Eventually(t, 30*time.Second, func() bool {
		answer, ok := r.ask("r3", "")
		return ok && answer.GetStatus().GetForwarding().GetRecoveryMs() == 0
	}, "the end of the last restart")
	for _, flood := range floods {
		flood.Signal(unix.SIGINT)
		flood.Wait()
		if out := flood.Output(); !strings.Contains(out, " 0% packet loss") {
			t.Errorf("while daemons were killed and started:\n%s", out)
		}
	}
	r.refuses()
	for _, name := range routers {
		r.daemons[name].Signal(unix.SIGTERM)
		if err := r.daemons[name].Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, r.daemons[name].Output())
		}
		if out := r.run(name, "ip", "link"); strings.Contains(out, "xdp") {
			t.Errorf("%s has still\n%s", name, out)
		}
	}
	for _, name := range routers {
		if left, err := os.ReadDir(filepath.Join(bpffs, name)); err == nil {
			t.Errorf("%s left %v", name, left)
		}
	}
}

// ipv6 has the nodes speak IPv6, too, with a way to the user, and none to the VIP, which s has.
func (r *rig) ipv6() {
	r.t.Helper()
	for _, x := range []struct{ node, link, address, user string }{
		{"u", "eth0", "2001:db8:1::11/64", ""}, {"r1", "e", "2001:db8:1::1/64", ""},
		{"r1", "a", "2001:db8:12::1/64", ""}, {"r2", "a", "2001:db8:12::2/64", "2001:db8:12::1"},
		{"r2", "b", "2001:db8:23::2/64", ""}, {"r3", "a", "2001:db8:23::3/64", "2001:db8:23::2"},
		{"r3", "c", "2001:db8:9::3/64", ""}, {"s", "eth0", "2001:db8:9::80/64", "2001:db8:9::3"},
	} {
		r.nodes[x.node].Sysctl("net.ipv6.conf.all.forwarding", "1")
		r.run(x.node, "ip", "address", "add", x.address, "dev", x.link, "nodad")
		if x.user != "" {
			r.run(x.node, "ip", "route", "add", "2001:db8:1::/64", "via", x.user)
		}
	}
	r.run("u", "ip", "route", "add", "default", "via", "2001:db8:1::1")
	r.run("s", "ip", "address", "add", "2001:db8::80/128", "dev", "lo")
}

// bind says at a router what a director would: that server s has all users.
func (r *rig) bind(router string) {
	r.t.Helper()
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 2}, Servers: []string{"s"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.80")},
	}
	for range a.Cells() {
		a.Owner, a.Standby = append(a.Owner, 0), append(a.Standby, alloc.None)
	}
	r.say(router, &tdpdv1.UserBinding{
		Service: "web", Vips: [][]byte{{192, 0, 2, 80}, netip.MustParseAddr("2001:db8::80").AsSlice()}, Allocation: alloc.ToProto("web", a), LifetimeMs: 120_000, HoldMs: 60_000,
	})
}

func (r *rig) say(router string, b *tdpdv1.UserBinding) {
	r.t.Helper()
	request, err := protojson.Marshal(&tdpdv1.Request{About: &tdpdv1.Request_Bind{Bind: &tdpdv1.BindRequest{Binding: b}}})
	if err != nil {
		r.t.Fatal(err)
	}
	answer, ok := r.ask(router, string(request))
	if !ok || answer.GetBind() == nil {
		r.t.Fatalf("%s does not take the binding: %v", router, answer)
	}
}

// refuses says at r3 that nobody serves any more: the user's connection attempts end at r1, at once.
func (r *rig) refuses() {
	r.t.Helper()
	b := &tdpdv1.UserBinding{
		Service: "web", Vips: [][]byte{{192, 0, 2, 80}, netip.MustParseAddr("2001:db8::80").AsSlice()}, Nobody: &allocv1.Epoch{Term: 1, Number: 2}, Refuse: tdpdv1.Refusal_REFUSAL_RESET,
		LifetimeMs: 120_000, HoldMs: 60_000,
	}
	r.say("r3", b)
	testnet.Eventually(r.t, 10*time.Second, func() bool { return r.steered("r1") == "1.2" }, "that nobody serves")
	for _, to := range []string{"192.0.2.80:80", "[2001:db8::80]:80"} {
		if err := r.nodes["u"].Do(func() error {
			_, err := net.DialTimeout("tcp", to, 20*time.Second)
			return err
		}); !errors.Is(err, unix.ECONNREFUSED) {
			r.t.Errorf("a connection to nobody at %s: %v", to, err)
		}
	}
	answer, _ := r.ask("r1", "")
	if n := answer.GetStatus().GetFastPath(); n["reset"] != 2 || n["nobody"] != 2 || n["pushed"] == 0 {
		r.t.Errorf("r1 counts %v", n)
	}
}

// steered is the epoch that a router steers the users of web by.
func (r *rig) steered(router string) string {
	answer, _ := r.ask(router, "")
	for _, s := range answer.GetStatus().GetSteered() {
		if s.GetService() == "web" {
			return fmt.Sprintf("%d.%d", s.GetEpoch().GetTerm(), s.GetEpoch().GetNumber())
		}
	}
	return ""
}
