package interop

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// watched is what the kernel of FRR's namespace says of routes.
type watched struct{ p *testnet.Process }

func (r *rig) watchRoutes() watched {
	r.t.Helper()
	p := r.peer.Start("ip", "-ts", "monitor", "route")
	// What it says of this route shows that it listens.
	r.eventually(func() bool {
		_, _ = r.peer.Run("ip", "route", "replace", "203.0.113.99/32", "dev", "lo")
		_, _ = r.peer.Run("ip", "route", "delete", "203.0.113.99/32", "dev", "lo")
		return strings.Contains(p.Output(), "Deleted 203.0.113.99")
	}, "ip monitor")
	return watched{p}
}

// withdrawn counts how often the route to an address went.
func (w watched) withdrawn(addr string) int { return strings.Count(w.p.Output(), "Deleted "+addr+" ") }

// kill sends the speaker's process a signal, and waits until another one has done what it did.
func (r *rig) kill(s unix.Signal) {
	r.t.Helper()
	old := r.child.PID()
	if score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", old)); err != nil || strings.TrimSpace(string(score)) != "500" {
		r.t.Errorf("oom_score_adj %q, %v: memory that is short takes others first", score, err)
	}
	if err := unix.Kill(old, s); err != nil {
		r.t.Fatal(err)
	}
	r.eventually(func() bool { pid := r.child.PID(); return pid != 0 && pid != old }, "another process")
	r.apply()
}

func TestNetRestart(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]unix.Signal{"killed": unix.SIGKILL, "planned": unix.SIGTERM, "hangs": unix.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			restart(t, signal)
		})
	}
}

// restart: the process ends, by itself or as it hangs, with neighbors of both families; another one takes its place, and FRR's kernel forwards without a gap.
func restart(t *testing.T, signal unix.Signal) {
	r := newNetwork(t)
	if signal == unix.SIGSTOP {
		r.every = 500 * time.Millisecond
	}
	r.startChild()
	r.d.Unicast = []bgp.Path{{Prefix: vip4}, {Prefix: vip6}}
	f := r.unicast(frrConfig{})
	there := func() bool {
		a, b := f.routes("ipv4 unicast", vip4), f.routes("ipv6 unicast", vip6)
		return len(a) == 1 && len(b) == 1 && !a[0].Stale && !b[0].Stale
	}
	r.eventually(there, "VIPs at FRR")
	w := r.watchRoutes()
	r.eventually(func() bool {
		out4, _ := r.peer.Run("ip", "route", "show", vip4.String())
		out6, _ := r.peer.Run("ip", "-6", "route", "show", vip6.String())
		return out4 != "" && out6 != ""
	}, "VIPs in the kernel")
	begun := time.Now()
	r.kill(signal)
	r.established(frr4)
	r.established(frr6)
	r.eventually(there, "VIPs at FRR again")
	t.Logf("%v until all is told again", time.Since(begun).Round(time.Millisecond))
	// What FRR keeps it keeps until it hears that all was told; whatever else it does, it does when its restart time is over.
	if n4, n6 := w.withdrawn(vip4.Addr().String()), w.withdrawn(vip6.Addr().String()); n4+n6 != 0 {
		t.Errorf("withdrawn %d and %d times:\n%s", n4, n6, w.p.Output())
	}
	if text := f.bgpd.Output(); strings.Contains(text, "Cease") {
		t.Errorf("FRR heard a Cease:\n%s", text)
	}
	// A path that goes afterwards does go.
	r.d.Unicast = r.d.Unicast[1:]
	r.apply()
	r.eventually(func() bool { return len(f.routes("ipv4 unicast", vip4)) == 0 && w.withdrawn(vip4.Addr().String()) == 1 }, "withdrawn")
}

// TestNetRestartWithOneAway: while a speaker that has restarted waits for a neighbor that does not come, what is withdrawn goes from the speaker at once. Those whose
// turn is later miss nothing else.
func TestNetRestartWithOneAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.d.Unicast = []bgp.Path{{Prefix: vip4}, {Prefix: vip6}}
	f := r.unicast(frrConfig{})
	away := r.neighbor(bgp.IPv4Unicast)
	away.Address = netip.MustParseAddr("10.0.1.9")
	r.d.Neighbors = append([]bgp.Neighbor{away}, r.d.Neighbors...)
	r.apply()
	w := r.watchRoutes()
	r.eventually(func() bool {
		out4, _ := r.peer.Run("ip", "route", "show", vip4.String())
		out6, _ := r.peer.Run("ip", "-6", "route", "show", vip6.String())
		return out4 != "" && out6 != ""
	}, "VIPs in the kernel")
	old := r.child.PID()
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.eventually(func() bool { pid := r.child.PID(); return pid != 0 && pid != old }, "another process")
	r.eventually(func() bool {
		err := r.client.Apply(t.Context(), r.d)
		if err == nil {
			t.Fatal("all neighbors have had their turn, in one call")
		}
		return errors.Is(err, bgp.ErrWaits)
	}, "another process that has all but neighbors")
	r.d.Unicast = r.d.Unicast[1:]
	if err := r.client.Apply(t.Context(), r.d); !errors.Is(err, bgp.ErrWaits) {
		t.Errorf("withdrawn: %v", err)
	}
	err := r.client.Routes(t.Context(), bgp.Query{Family: bgp.IPv4Unicast}, func(one bgp.Route) bool {
		t.Errorf("the speaker still has %v", one.Unicast.Prefix)
		return true
	})
	if err != nil {
		t.Error(err)
	}
	r.apply()
	r.established(frr4)
	r.established(frr6)
	r.eventually(func() bool {
		b := f.routes("ipv6 unicast", vip6)
		return len(f.routes("ipv4 unicast", vip4)) == 0 && len(b) == 1 && !b[0].Stale
	}, "FRR has what there is, and no more")
	if n := w.withdrawn(vip6.Addr().String()); n != 0 {
		t.Errorf("withdrawn %d times:\n%s", n, w.p.Output())
	}
}

// TestNetLeave: at a clean stop neighbors hear a Cease, and nobody waits for this router.
func TestNetLeave(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.d.Restart.Time = 600 * time.Second // much longer than the test waits
	r.d.Unicast = []bgp.Path{{Prefix: vip4}, {Prefix: vip6}}
	f := r.unicast(frrConfig{})
	r.eventually(func() bool {
		return len(f.routes("ipv4 unicast", vip4)) == 1 && len(f.routes("ipv6 unicast", vip6)) == 1
	}, "VIPs at FRR")
	r.stop(false)
	r.eventually(func() bool { return len(f.routes("ipv4 unicast", vip4))+len(f.routes("ipv6 unicast", vip6)) == 0 }, "VIPs are gone")
	for _, a := range []netip.Addr{us4, us6} {
		if text := f.vty("show bgp neighbors " + a.String()); !strings.Contains(text, "Cease") {
			t.Errorf("FRR was told no Cease by %v:\n%s", a, text)
		}
	}
}
