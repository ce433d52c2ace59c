package interop

import (
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
)

// everything is a policy that takes all that it can.
var everything = bgp.Policy{Name: "everything", Rules: []bgp.PolicyRule{{}}}

func (r *rig) taking(p bgp.Policy) {
	n := r.neighbor(bgp.IPv4Unicast)
	n.Import = p.Name
	r.d.Policies, r.d.Neighbors = []bgp.Policy{p}, []bgp.Neighbor{n}
}

// TestNetWhatNobodyMayTell: a default route, our VIP, what is inside a VIP's prefix, and martians are not taken in any family, whatever the policy says.
func TestNetWhatNobodyMayTell(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.d.VIPs = []netip.Prefix{vip4, netip.MustParsePrefix("192.0.2.0/26"), vip6, netip.MustParsePrefix("2001:db8:80:1::/64")}
	r.d.Martians = bgppolicy.Martians(true)
	r.taking(everything)
	r.d.Neighbors[0].Families = slices.Collect(maps.Keys(families))
	seen := r.watch()
	peers := r.badPeers(true)
	r.apply()
	p := r.next(peers)
	good := map[bool][]string{true: {"192.0.2.0/25", "198.51.100.0/24"}, false: {"2001:db8:80::/48", "2001:db8:99::/48"}}
	bad := map[bool][]string{
		true: {
			"0.0.0.0/0", "192.0.2.80/32", "192.0.2.0/26", "192.0.2.0/27", "192.0.2.5/32", "127.0.0.0/8", "127.1.2.3/32", "0.0.0.0/8", "169.254.0.0/16", "192.0.0.8/32", "224.0.0.0/4",
			"239.1.2.3/32", "255.255.255.255/32",
		},
		false: {
			"::/0", "2001:db8:80::80/128", "2001:db8:80:1::/64", "2001:db8:80:1::/65", "2001:db8:80:1::5/128", "::/128", "::1/128", "fe80::/10", "fe80::1/128",
			"ff00::/8", "ff02::1/128",
		},
	}
	for f := range families {
		told := parse(slices.Concat(bad[f.Is4()], good[f.Is4()]))
		if !f.Is4() { // the library would die of it, and does not list it
			told = append(told, netip.MustParsePrefix("::ffff:0:0/96"), netip.MustParsePrefix("::ffff:192.0.2.80/128"))
			slices.Reverse(told)
		}
		tell := func() error { return p.tellOf(f, told) }
		if f == bgp.IPv4Unicast { // it has two ways
			tell = func() error { return p.tell(told) }
		}
		if err := tell(); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually(func() bool {
		for f := range families {
			for _, one := range parse(good[f.Is4()]) {
				if !seen.has(f, one) {
					return false
				}
			}
		}
		return true
	}, "the good ones")
	if routes, learned, _, _ := seen.counts(); routes != 2*len(families) || learned != routes {
		t.Errorf("%d routes, %d times learned, want %d: %v", routes, learned, 2*len(families), seen.routes)
	}
	if n := r.child.Restarts(); n != 0 {
		t.Errorf("the speaker's process has ended %d times", n)
	}
	for f := range families {
		var filtered []string
		err := r.client.Routes(t.Context(), bgp.Query{Family: f, Neighbor: frr4}, func(one bgp.Route) bool {
			if one.Filtered && f.Labelled() {
				filtered = append(filtered, one.Labelled.Prefix.String())
			} else if one.Filtered {
				filtered = append(filtered, one.Unicast.Prefix.String())
			}
			return true
		})
		want := slices.Clone(bad[f.Is4()])
		slices.Sort(want)
		slices.Sort(filtered)
		if err != nil || !slices.Equal(filtered, want) {
			t.Errorf("%v: shown as filtered are %v, %v, want %v", f, filtered, err, want)
		}
	}
}

func parse(texts []string) (out []netip.Prefix) {
	for _, one := range texts {
		out = append(out, netip.MustParsePrefix(one))
	}
	return out
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// rss is the memory of a process, in bytes.
func rss(t *testing.T, pid int) int {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := strconv.Atoi(strings.Fields(string(text))[1])
	return pages * os.Getpagesize()
}

// TestNetFlood: of 500,000 routes ten are wanted. By the policy this process hears of ten; where the policy takes all, the check at the seam leaves ten. Neither
// costs memory here.
func TestNetFlood(t *testing.T) {
	const n, wanted = 500_000, 10
	for name, policy := range map[string]bgp.Policy{
		"by policy": {Name: "ten", Rules: []bgp.PolicyRule{{Prefixes: []bgp.PrefixRange{{Prefix: netip.MustParsePrefix("20.0.0.0/20"), Least: 24, Most: 24}}}}},
		"by check":  everything,
	} {
		t.Run(name, func(t *testing.T) {
			r := newNetwork(t)
			r.check = func(l bgp.Learned) string {
				if a := l.Unicast.Prefix.Addr().As4(); a[0] != 20 || a[1] != 0 || a[2] >= wanted {
					return "not wanted"
				}
				return ""
			}
			r.startChild()
			r.taking(policy)
			seen := r.watch()
			peers := r.badPeers(true)
			r.apply()
			p := r.next(peers)
			p.live()
			before, begun := heap(), time.Now()
			most := uint64(0)
			if err := p.tell(prefixes("20.0.0.0", n)); err != nil {
				t.Fatal(err)
			}
			const long = 5 * time.Minute
			testnet.Eventually(t, long, func() bool {
				most = max(most, heap())
				s := r.state(frr4)
				return len(s.Families) == 1 && s.Families[0].Received == n
			}, "all routes at the speaker")
			testnet.Eventually(t, long, func() bool { routes, _, _, _ := seen.counts(); return routes == wanted }, "ten routes")
			if policy.Name == everything.Name {
				testnet.Eventually(t, long, func() bool { most = max(most, heap()); return seen.refusedFor("not wanted") == n-wanted }, "all others refused")
			} else if seen.refusedFor("not wanted") > 6 {
				t.Errorf("%d routes came here against the policy", seen.refusedFor("not wanted"))
			}
			took := time.Since(begun)
			most = max(most, heap())
			t.Logf("%d routes in %v, %.0f/s; heap %+.1f MB here at most, speaker %.0f MB", n, took.Round(time.Millisecond), n/took.Seconds(), float64(int64(most-before))/1e6, float64(rss(t, r.child.PID()))/1e6)
			if most > before+48<<20 {
				t.Errorf("the heap has grown by %d bytes", most-before)
			}
		})
	}
}

// TestNetKilledInConvergence: the speaker's process is killed while a neighbor tells it 50,000 routes, and again when it is back. What was learned by then is not lost
// meanwhile, and all is there at last.
func TestNetKilledInConvergence(t *testing.T) {
	const n = 50_000
	r := newRig(t)
	r.taking(everything)
	seen := r.watch()
	peers := r.badPeers(true)
	r.apply()
	all := prefixes("20.0.0.0", n)
	for range 2 {
		p := r.next(peers)
		p.live()
		if err := p.tell(all[:n/2]); err != nil {
			t.Fatal(err)
		}
		r.eventually(func() bool { routes, _, _, _ := seen.counts(); return routes > 1000 }, "the first routes")
		old := r.child.PID()
		_ = unix.Kill(old, unix.SIGKILL)
		r.eventually(func() bool { pid := r.child.PID(); return pid != 0 && pid != old }, "another process")
		r.apply()
	}
	p := r.next(peers)
	p.live()
	if err := p.tell(all); err != nil {
		t.Fatal(err)
	}
	if err := p.endOfRIB(); err != nil {
		t.Fatal(err)
	}
	r.eventually(func() bool { routes, _, _, synced := seen.counts(); return routes == n && synced > 0 }, "all routes")
	if _, _, lost, _ := seen.counts(); lost != 0 {
		t.Errorf("%d routes were lost", lost)
	}
	// What is not told any more goes with the end of what is told.
	old := r.child.PID()
	_ = unix.Kill(old, unix.SIGKILL)
	r.eventually(func() bool { pid := r.child.PID(); return pid != 0 && pid != old }, "another process")
	r.apply()
	p = r.next(peers)
	p.live()
	if err := p.tell(all[10:]); err != nil {
		t.Fatal(err)
	}
	if err := p.endOfRIB(); err != nil {
		t.Fatal(err)
	}
	r.eventually(func() bool { routes, _, lost, _ := seen.counts(); return routes == n-10 && lost == 10 }, "ten are lost")
}

// TestNetFlaps: a neighbor ends its session as soon as it has told something, and connects again at once, many times a second; the library lets it in every 5 s. What it told comes and
// goes with it, or is kept for its restart, and the last session is as good as the first. FRR beside it has the VIP all the time, on the session that it had.
func TestNetFlaps(t *testing.T) {
	t.Parallel()
	const flaps = 5
	r := newRig(t)
	bad := r.net.Node("bad")
	r.net.Link(r.us, "b", "10.0.2.1/24", bad, "a", "10.0.2.2/24")
	r.taking(everything)
	r.d.Unicast = []bgp.Path{{Prefix: vip4}}
	other := r.d.Neighbors[0]
	other.Address, other.Passive = netip.MustParseAddr("10.0.2.2"), true // we would be slower to connect
	r.d.Neighbors = append(r.d.Neighbors, other)
	f := r.frr(frrConfig{families: family("ipv4 unicast", us4)})
	seen := r.watch()
	r.apply()
	r.established(frr4)
	r.eventually(func() bool { return len(f.routes("ipv4 unicast", vip4)) == 1 }, "the VIP at FRR")
	since, w, begun := r.state(frr4).Since, r.watchRoutes(), time.Now()
	one := prefixes("20.0.0.0", 100)
	for i := range flaps {
		p := r.connects(bad, "10.0.2.1:179")
		if err := p.tell(one[:100-i]); err != nil {
			t.Fatal(err)
		}
		if err := p.endOfRIB(); err != nil {
			t.Fatal(err)
		}
		r.eventually(func() bool { routes, _, _, _ := seen.counts(); return routes == 100-i }, "routes of session ", i)
		p.conn.Close()
	}
	t.Logf("%d sessions in %v", flaps, time.Since(begun).Round(time.Millisecond))
	if s := r.state(other.Address); s.Flaps == 0 {
		t.Errorf("%+v", s)
	}
	if s := r.state(frr4); s.State != bgp.Established || s.Since != since {
		t.Errorf("FRR's session, of %v, has not gone on: %+v", since, s)
	}
	if n := w.withdrawn(vip4.Addr().String()); n != 0 {
		t.Errorf("the VIP was withdrawn %d times", n)
	}
	if n := r.child.Restarts(); n != 0 {
		t.Errorf("the speaker's process has ended %d times", n)
	}
}

// TestNetRemotePanic: the library's server dies of AS4_PATH before AS_PATH (CVE-2026-41643) of one neighbor. The other one, FRR, goes on with what it was told, and
// withdraws nothing.
func TestNetRemotePanic(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bad := r.net.Node("bad")
	r.net.Link(r.us, "b", "10.0.2.1/24", bad, "a", "10.0.2.2/24")
	r.d.Unicast = []bgp.Path{{Prefix: vip4}}
	f := r.frr(frrConfig{families: family("ipv4 unicast", us4)})
	other := r.neighbor(bgp.IPv4Unicast)
	other.Address = netip.MustParseAddr("10.0.2.2")
	r.d.Neighbors = []bgp.Neighbor{r.neighbor(bgp.IPv4Unicast), other}
	peers := badPeers(t, bad, "10.0.2.2:179", false)
	r.apply()
	r.established(frr4)
	r.eventually(func() bool { return len(f.routes("ipv4 unicast", vip4)) == 1 }, "the VIP at FRR")
	w := r.watchRoutes()
	p := r.next(peers)
	deadly := []byte{0x40, 1, 1, 0 /* ORIGIN */, 0x40, 3, 4, 10, 0, 2, 2 /* NEXT_HOP */, 0xc0, 17, 6, 2, 1, 0, 0, 0xfd, 0xe9 /* AS4_PATH */, 0x40, 2, 4, 2, 1, 0xfd, 0xe9 /* AS_PATH */}
	if err := p.write(msgUpdate, update(deadly, nil, prefixes("20.0.0.0", 1))); err != nil {
		t.Fatal(err)
	}
	r.eventually(func() bool { return r.child.Restarts() == 1 }, "the end of the process")
	if !strings.Contains(r.log.String(), "panic") {
		t.Error("it has not ended by a panic: the library is another one by now?")
	}
	r.apply()
	r.established(frr4)
	r.established(other.Address)
	r.eventually(func() bool { p := f.routes("ipv4 unicast", vip4); return len(p) == 1 && !p[0].Stale }, "the VIP at FRR, told again")
	if n := w.withdrawn(vip4.Addr().String()); n != 0 {
		t.Errorf("withdrawn %d times", n)
	}
}
