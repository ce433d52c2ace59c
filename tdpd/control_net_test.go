package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/control/controltest"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/groupkeys"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/lab/probe"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/testnet"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// beTheMember is a server's agent as far as the control channel goes: what it needs is in the directory, which is called as the server is.
func beTheMember(dir string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg := control.DefaultConfig()
	cfg.Group, cfg.Interfaces = controltest.Group.String(), []string{"eth0"}
	cfg.Identity, cfg.Authority = filepath.Join(dir, "identity"), filepath.Join(dir, "authority.pub")
	c, err := channel.Open(cfg, filepath.Base(dir), control.Server, nil, log)
	if err != nil {
		return err
	}
	keys := groupkeys.New(filepath.Join(dir, "groups"), "", nil, c.SetKeys, log)
	ended := make(chan error, 2)
	for _, run := range []func(context.Context) error{keys.Run, c.Run} {
		go func() { ended <- run(context.Background()) }()
	}
	return <-ended
}

// failover is u eth0--e r1, and r1 c1--eth0 s1, r1 c2--eth0 s2: both servers have the VIP and speak on a control channel that r1 hears.
type failover struct {
	*rig
	members map[string]*testnet.Process
	taps    map[string]*probe.Tap
}

var vip = netip.MustParseAddr("192.0.2.80")

func newFailover(t *testing.T) *failover {
	t.Helper()
	n := testnet.New(t)
	f := &failover{
		rig: &rig{
			t: t, dir: t.TempDir(), nodes: map[string]*testnet.Node{}, daemons: map[string]*testnet.Process{}, caps: ",+bpf,+net_raw",
			whole: map[string]string{},
		},
		members: map[string]*testnet.Process{}, taps: map[string]*probe.Tap{},
	}
	for _, name := range []string{"r1", "u", "s1", "s2"} {
		f.nodes[name] = n.Node(name)
	}
	r1 := f.nodes["r1"]
	r1.Sysctl("net.ipv4.ip_forward", "1")
	r1.Address("lo", "1.1.1.1/32")
	n.Link(f.nodes["u"], "eth0", "10.1.0.11/24", r1, "e", "10.1.0.1/24")
	f.nodes["u"].Route("0.0.0.0/0", "10.1.0.1")
	if err := f.nodes["u"].WholeChecksums("eth0"); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"s1", "s2"} {
		s := f.nodes[name]
		n.Link(s, "eth0", fmt.Sprintf("10.9.%d.80/24", i+1), r1, fmt.Sprint("c", i+1), fmt.Sprintf("10.9.%d.1/24", i+1))
		s.Address("lo", vip.String()+"/32")
		s.Route("0.0.0.0/0", fmt.Sprintf("10.9.%d.1", i+1))
		if err := s.TakesXDP("eth0"); err != nil {
			t.Fatal(err)
		}
		f.enrol(name, netip.AddrFrom4([4]byte{10, 9, byte(i + 1), 80}))
		tap, err := probe.WatchFar(s.Namespace, "eth0", vip, controltest.Group)
		if err != nil {
			t.Fatal(err)
		}
		f.taps[name] = tap
		t.Cleanup(func() {
			if err := tap.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	f.whole["r1"] = fmt.Sprintf(`
router_id = "1.1.1.1"
interfaces = ["c1", "c2"]
[servers]
addresses = ["10.9.1.80", "10.9.2.80"]
[forwarding]
tables = "none"
fast_path = true
edge = ["e"]
bpffs = %q
[control]
group = %q
authority = %q
keys = %q
interfaces = ["c1", "c2"]
`, filepath.Join(n.BPFFS(), "r1"), controltest.Group, filepath.Join(f.state("s1"), "authority.pub"), filepath.Join(f.state("s1"), "groups"))
	return f
}

// enrol gives a server what makes it a member.
func (f *failover) enrol(name string, address netip.Addr) {
	f.t.Helper()
	dir, key := f.state(name), controltest.GroupKey(1)
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "groups"), 0o700))
	for _, write := range []func() error{
		func() error {
			return keyfile.WriteIdentity(filepath.Join(dir, "identity"), controltest.Identity(name, control.Server, false, address, time.Now()), false)
		},
		func() error {
			return keyfile.WriteAuthority(filepath.Join(dir, "authority"), controltest.Authority(), false)
		},
		func() error { return keyfile.WriteGroup(filepath.Join(dir, "groups", key.FileName()), key, false) },
	} {
		if err == nil {
			err = write()
		}
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// speak starts a server's member.
func (f *failover) speak(name string) {
	f.t.Helper()
	f.members[name] = f.nodes[name].Start("env", memberEnv+"="+f.state(name), os.Args[0])
}

// failing waits until the router takes these servers, and no others, for failing.
func (f *failover) failing(want ...string) {
	f.t.Helper()
	testnet.Eventually(f.t, 20*time.Second, func() bool {
		answer, ok := f.ask("r1", "")
		steered := answer.GetStatus().GetSteered()
		return ok && len(steered) == 1 && fmt.Sprint(steered[0].GetFailing()) == fmt.Sprint(want)
	}, "failing: ", want)
}

// sendUsers has users ask for the VIP until the test ends, one packet a millisecond.
func (f *failover) sendUsers() {
	f.t.Helper()
	var conn net.Conn
	if err := f.nodes["u"].Do(func() (err error) { conn, err = net.Dial("udp", vip.String()+":9"); return err }); err != nil {
		f.t.Fatal(err)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-done:
				return
			case <-tick.C:
				_, _ = conn.Write([]byte("hello")) // a port without a server is refused now and then
			}
		}
	}()
	f.t.Cleanup(func() { close(done); <-ended; conn.Close() })
}

// gets says whether users' packets come to a server now, and to no other one.
func (f *failover) gets(name string) bool {
	to := time.Now()
	from := to.Add(-100 * time.Millisecond)
	for other, tap := range f.taps {
		if _, sent := tap.Between(from, to); (len(sent) > 0) != (other == name) {
			return false
		}
	}
	return true
}

// TestNetServerFallsSilent: the user's server falls silent, though its link and its machine are up: its standby has the user, without a
// director, a bus or a leader. It stays so over a restart of the router, and until the server is heard again.
func TestNetServerFallsSilent(t *testing.T) {
	f := newFailover(t)
	f.speak("s1")
	f.speak("s2")
	f.start("r1")
	testnet.Eventually(t, 20*time.Second, func() bool { _, ok := f.ask("r1", ""); return ok }, "r1")
	f.bindTo("s1", "s2")
	f.failing()
	f.sendUsers()
	testnet.Eventually(t, 20*time.Second, func() bool { return f.gets("s1") }, "s1 has the user")
	time.Sleep(time.Second) // the channel has met

	at := time.Now()
	f.members["s1"].Signal(unix.SIGKILL)
	testnet.Eventually(t, 20*time.Second, func() bool { return f.gets("s2") }, "s2 has the user")
	heard, sent := f.taps["s1"].Between(at.Add(-time.Second), time.Now())
	took, ok := report.Detected(heard, sent, at, time.Now())
	if !ok || took > 2*time.Second {
		t.Errorf("packets went to the silent server for %v after its last one, %v", took, ok)
	}
	t.Logf("from the last packet of the server to the last one toward it: %v ms", report.Milliseconds(took))
	f.failing("s1")

	time.Sleep(1100 * time.Millisecond) // who is silent is on the disk within a second
	f.daemons["r1"].Signal(unix.SIGKILL)
	f.daemons["r1"].Wait()
	restarted := time.Now()
	f.start("r1")
	f.failing("s1")
	if _, sent := f.taps["s1"].Between(restarted, time.Now()); len(sent) > 0 || !f.gets("s2") {
		t.Errorf("the restart has sent %d packets to the silent server", len(sent))
	}
	f.speak("s1")
	testnet.Eventually(t, 20*time.Second, func() bool { return f.gets("s1") }, "s1 is back and has the user")
	f.daemons["r1"].Signal(unix.SIGTERM)
	if err := f.daemons["r1"].Wait(); err != nil {
		t.Errorf("%v\n%s", err, f.daemons["r1"].Output())
	}
}

// bindTo says at r1 that all users are the first server's, and the second one's when that fails.
func (f *failover) bindTo(owner, standby string) {
	f.t.Helper()
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 8}, Servers: []string{owner, standby},
		Addresses: []netip.Addr{netip.MustParseAddr("10.9.1.80"), netip.MustParseAddr("10.9.2.80")},
	}
	for range a.Cells() {
		a.Owner, a.Standby = append(a.Owner, 0), append(a.Standby, 1)
	}
	v := vip.As4()
	request, err := protojson.Marshal(&tdpdv1.Request{About: &tdpdv1.Request_Bind{Bind: &tdpdv1.BindRequest{Binding: &tdpdv1.UserBinding{
		Service: "web", Vips: [][]byte{v[:]}, Allocation: alloc.ToProto("web", a), LifetimeMs: 120_000, HoldMs: 60_000,
	}}}})
	if err != nil {
		f.t.Fatal(err)
	}
	if answer, ok := f.ask("r1", string(request)); !ok || answer.GetBind() == nil {
		f.t.Fatalf("r1 does not take the binding: %v", answer)
	}
}
