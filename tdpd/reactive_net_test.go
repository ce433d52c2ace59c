package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/testnet"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// TestNetUsersAfterTheirFirstPacket: r1, where users are, r2 and r3, where a director is, in a chain; at r3 another router, r4, with users of
// its own; servers s and t. Users get their labels further and further up with each packet that comes without one, nobody else does, and the
// router that packets do not come from hears nothing. Epochs move who is active; after its time a user begins anew.
func TestNetUsersAfterTheirFirstPacket(t *testing.T) {
	n := testnet.New(t)
	r := newRigIn(t, n)
	for _, name := range []string{"u", "u4", "r4", "t"} {
		r.nodes[name] = n.Node(name)
	}
	for _, key := range []string{"net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"} {
		name, value, _ := strings.Cut(key, "=")
		r.nodes["r4"].Sysctl(name, value)
	}
	r.nodes["r4"].Address("lo", "4.4.4.4/32")
	n.Link(r.nodes["u"], "eth0", "10.1.0.11/24", r.nodes["r1"], "e", "10.1.0.1/24")
	r.nodes["u"].Address("eth0", "10.1.0.12/24")
	n.Link(r.nodes["u4"], "eth0", "10.4.0.11/24", r.nodes["r4"], "e", "10.4.0.1/24")
	n.Link(r.nodes["r4"], "a", "10.0.34.4/24", r.nodes["r3"], "b", "10.0.34.3/24")
	n.Link(r.nodes["r3"], "e", "10.9.1.3/24", r.nodes["t"], "eth0", "10.9.1.81/24")
	for _, x := range [][3]string{
		{"u", "0.0.0.0/0", "10.1.0.1"}, {"u4", "0.0.0.0/0", "10.4.0.1"}, {"t", "0.0.0.0/0", "10.9.1.3"},
		{"r1", "10.9.1.0/24", "10.0.12.2"}, {"r1", "192.0.2.80/32", "10.0.12.2"},
		{"r2", "10.9.1.0/24", "10.0.23.3"}, {"r2", "192.0.2.80/32", "10.0.23.3"}, {"r2", "10.1.0.0/24", "10.0.12.1"},
		{"r3", "10.1.0.0/24", "10.0.23.2"}, {"r3", "10.4.0.0/24", "10.0.34.4"}, {"r3", "4.4.4.4/32", "10.0.34.4"},
		{"r4", "10.9.0.0/24", "10.0.34.3"}, {"r4", "10.9.1.0/24", "10.0.34.3"}, {"r4", "192.0.2.80/32", "10.0.34.3"}, {"r4", "3.3.3.3/32", "10.0.34.3"},
	} {
		r.run(x[0], "ip", "route", "add", x[1], "via", x[2], "metric", "20")
	}
	for _, server := range []string{"s", "t"} {
		r.nodes[server].Address("lo", "192.0.2.80/32")
		if err := r.nodes[server].TakesXDP("eth0"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(r.nodes["u"].WholeChecksums("eth0"), r.nodes["u4"].WholeChecksums("eth0")); err != nil {
		t.Fatal(err)
	}
	bpffs := n.BPFFS()
	fast := func(name, more string) string {
		return fmt.Sprintf("[forwarding]\ntables = \"none\"\nfast_path = true\nbpffs = %q\n%s", filepath.Join(bpffs, name), more)
	}
	r.caps = ",+bpf"
	r.extra = "[servers]\naddresses = [\"10.9.0.80\", \"10.9.1.81\"]\n"
	r.of = map[string]string{
		"r1": fast("r1", "edge = [\"e\"]\n[[users.accept]]\nfrom = \"2.2.2.2\"\n"),
		"r2": fast("r2", "[users]\nupstream = [\"1.1.1.1\"]\n[[users.accept]]\nfrom = \"3.3.3.3\"\n"),
		"r3": fast("r3", "[users]\nupstream = [\"2.2.2.2\", \"4.4.4.4\"]\n"),
		"r4": fast("r4", "edge = [\"e\"]\n[users]\nactive = \"3s\"\n[[users.accept]]\nfrom = \"3.3.3.3\"\n"),
	}
	all := append([]string{"r4"}, routers...)
	for _, name := range all {
		r.start(name)
	}
	for name, sessions := range map[string]int{"r1": 1, "r2": 2, "r3": 2, "r4": 1} {
		r.operational(name, sessions)
	}
	r.tree()
	r.bindReactive(1, "s")
	for _, name := range all {
		testnet.Eventually(t, 10*time.Second, func() bool { return r.steered(name) == "1.1" }, name, " is told")
	}
	pushed := func(name string) uint64 { return r.status(name).GetFastPath()["pushed"] }
	// asks has a user ask once, and says how many packets r1 and r2 have tagged for that.
	asks := func(when, user string) (first, second uint64) {
		t.Helper()
		first, second = pushed("r1"), pushed("r2")
		if out, err := r.nodes["u"].Run("ping", "-c", "1", "-W", "5", "-I", user, "192.0.2.80"); err != nil {
			t.Fatalf("%s: %v\n%s", when, err, out)
		}
		return pushed("r1") - first, pushed("r2") - second
	}
	active := func(name string, want uint32) {
		t.Helper()
		testnet.Eventually(t, 10*time.Second, func() bool { return r.activeUsers(name) == want }, want, " active users of ", name, ", of ", r.activeUsers(name))
	}
	for i, user := range []string{"10.1.0.11", "10.1.0.12"} {
		if first, second := asks("the first packet", user); first+second != 0 {
			t.Fatalf("the first packet of %s is tagged by r1 %d and by r2 %d", user, first, second)
		}
		active("r2", uint32(i+1))
		active("r1", uint32(i)) // it has heard of none of the user's that r2 tagged
		testnet.Eventually(t, 10*time.Second, func() bool {
			_, second := asks("the next ones", user)
			return second == 1
		}, "r2 tags ", user)
		active("r1", uint32(i+1))
		testnet.Eventually(t, 10*time.Second, func() bool {
			first, second := asks("those after them", user)
			return first == 1 && second == 0
		}, "r1 tags ", user)
	}
	active("r4", 0)
	if got := r.status("r3").GetTagless(); got["told"] < 2 || len(got) != 1 {
		t.Errorf("r3 has told of packets: %v, want the first one of each user", got)
	}
	echoes := func(server string) string { return r.run(server, "grep", "-A1", "Icmp:", "/proc/net/snmp") }
	before := echoes("s")
	r.bindReactive(2, "t")
	for _, name := range all {
		testnet.Eventually(t, 10*time.Second, func() bool { return r.steered(name) == "1.2" }, name, " is told of the epoch")
	}
	if first, _ := asks("an epoch", "10.1.0.11"); first != 1 || echoes("s") != before {
		t.Errorf("an epoch: tagged by r1 %d, and the server before has had it:\n%s\n%s", first, before, echoes("s"))
	}
	asks4 := func(when string) {
		t.Helper()
		if out, err := r.nodes["u4"].Run("ping", "-c", "1", "-W", "5", "192.0.2.80"); err != nil {
			t.Fatalf("%s: %v\n%s", when, err, out)
		}
	}
	for _, when := range []string{"by the other router", "anew"} {
		asks4(when)
		active("r4", 1)
		active("r2", 2)
		active("r4", 0) // after its time
	}
	r.daemons["r1"].Signal(unix.SIGKILL)
	r.daemons["r1"].Wait()
	r.start("r1")
	testnet.Eventually(t, 30*time.Second, func() bool { return r.steered("r1") == "1.2" }, "r1 is back")
	r.operational("r1", 1)
	testnet.Eventually(t, 30*time.Second, func() bool {
		asks("after a restart", "10.1.0.11")
		return r.activeUsers("r1") == 1
	}, "the user is active again at r1")
	for _, name := range all {
		r.daemons[name].Signal(unix.SIGTERM)
		if err := r.daemons[name].Wait(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, r.daemons[name].Output())
		}
	}
}

// bindReactive says at r3 what a director would of a reactive service: that one of the servers has all users in that epoch.
func (r *rig) bindReactive(number uint64, server string) {
	r.t.Helper()
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: number}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 2}, Servers: []string{"s", "t"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.80"), netip.MustParseAddr("10.9.1.81")},
	}
	owner := uint16(0)
	if server == "t" {
		owner = 1
	}
	for range a.Cells() {
		a.Owner, a.Standby = append(a.Owner, owner), append(a.Standby, 1-owner)
	}
	request, err := protojson.Marshal(&tdpdv1.Request{About: &tdpdv1.Request_Bind{Bind: &tdpdv1.BindRequest{Binding: &tdpdv1.UserBinding{
		Service: "web", Vips: [][]byte{{192, 0, 2, 80}}, Allocation: alloc.ToProto("web", a), LifetimeMs: 600_000, HoldMs: 60_000, Reactive: true,
	}}}})
	if err != nil {
		r.t.Fatal(err)
	}
	if answer, ok := r.ask("r3", string(request)); !ok || answer.GetBind() == nil {
		r.t.Fatalf("r3 does not take the binding: %v", answer)
	}
}

func (r *rig) status(router string) *tdpdv1.Status {
	answer, _ := r.ask(router, "")
	return answer.GetStatus()
}

// activeUsers are how many users of web a router sends along trees, beside none.
func (r *rig) activeUsers(router string) uint32 {
	for _, s := range r.status(router).GetSteered() {
		if s.GetService() == "web" {
			return s.GetActive()
		}
	}
	return 0
}
