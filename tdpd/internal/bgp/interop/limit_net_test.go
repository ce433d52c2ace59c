package interop

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// TestNetMaxPrefix: a neighbor that tells more than it may hears why its session ends. It stays so, and nothing is kept of what it told, before the operator
// clears it.
func TestNetMaxPrefix(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := r.frr(frrConfig{global: " no bgp network import-check\n", families: family("ipv4 unicast", us4, "network 198.51.100.1/32", "network 198.51.100.2/32")})
	r.taking(everything)
	r.d.Neighbors[0].MaxPrefixes = 2
	seen := r.watch()
	has := func(n int) func() bool { return func() bool { routes, _, _, _ := seen.counts(); return routes == n } }
	r.apply()
	r.established(frr4)
	r.eventually(has(2), "two prefixes")
	f.vty("configure terminal", "router bgp 65001", "address-family ipv4 unicast", "network 198.51.100.3/32")
	r.eventually(func() bool { s := r.state(frr4); return s.State != bgp.Established && s.OverLimit }, "the end of the session")
	r.eventually(func() bool {
		return strings.Contains(f.vty("show bgp neighbors 10.0.1.1"), "Maximum Number of Prefixes")
	}, "what FRR was told")
	r.eventually(has(0), "nothing kept, graceful restart or not")
	f.vty("configure terminal", "router bgp 65001", "address-family ipv4 unicast", "no network 198.51.100.3/32")
	if s := r.state(frr4); !s.OverLimit {
		t.Errorf("it is back by itself: %+v", s)
	}
	if err := r.client.Clear(t.Context(), frr4, false); err != nil {
		t.Fatal(err)
	}
	r.established(frr4)
	r.eventually(has(2), "two prefixes again")
}

// tellEach announces prefixes in UPDATEs of their own, with attributes that no other path has: an AS_PATH of five, and three communities.
func (p *badPeer) tellEach(prefixes []netip.Prefix) error {
	for i, one := range prefixes {
		as := []byte{0x40, 1, 1, 0, 0x40, 2, 22, 2, 5, 0, 0, 0xfd, 0xe9}
		for hop := range uint32(4) {
			as = binary.BigEndian.AppendUint32(as, 100_000+hop<<20+uint32(i))
		}
		as = append(as, 0x40, 3, 4, 10, 0, 1, 2, 0xc0, 8, 12)
		for c := range uint32(3) {
			as = binary.BigEndian.AppendUint32(as, c<<24+uint32(i))
		}
		if err := p.write(msgUpdate, update(as, nil, []netip.Prefix{one})); err != nil {
			return err
		}
	}
	return nil
}

// TestNetMemoryOfARoute: what the speaker's process needs for a route, attributes of its own and all, is what the documentation has people reckon with.
func TestNetMemoryOfARoute(t *testing.T) {
	const n = 100_000
	nothing := bgp.Policy{Name: "nothing", Rules: []bgp.PolicyRule{{Prefixes: []bgp.PrefixRange{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Least: 24, Most: 24}}}}}
	for name, c := range map[string]struct {
		policy bgp.Policy
		tell   func(*badPeer, []netip.Prefix) error
	}{
		"refused alike": {nothing, (*badPeer).tell}, "refused each": {nothing, (*badPeer).tellEach},
		"taken alike": {everything, (*badPeer).tell}, "taken each": {everything, (*badPeer).tellEach},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.taking(c.policy)
			seen := r.watch()
			peers := r.badPeers(true)
			r.apply()
			p := r.next(peers)
			before := rss(t, r.child.PID())
			if err := c.tell(p, prefixes("20.0.0.0", n)); err != nil {
				t.Fatal(err)
			}
			const long = 2 * time.Minute
			testnet.Eventually(t, long, func() bool { s := r.state(frr4); return len(s.Families) == 1 && s.Families[0].Received == n }, "all routes at the speaker")
			if c.policy.Name == everything.Name {
				testnet.Eventually(t, long, func() bool { routes, _, _, _ := seen.counts(); return routes == n }, "all routes here")
			}
			most := (peak(t, r.child.PID()) - before) / n
			t.Logf("%d bytes a route, at the peak", most)
			if most > 4<<10 {
				t.Errorf("docs/bgp.md has people reckon with 3 kB")
			}
		})
	}
}

// TestNetFarOverTheLimit: who tells as fast as it can ten times what it may, a route in each update, has no session soon, and has cost no more than twice what it may.
func TestNetFarOverTheLimit(t *testing.T) {
	const n = 100_000
	r := newRig(t)
	r.taking(everything)
	r.d.Neighbors[0].MaxPrefixes = n
	peers := r.badPeers(true)
	r.apply()
	p := r.next(peers)
	before := rss(t, r.child.PID())
	_ = p.tellEach(prefixes("20.0.0.0", 10*n)) // the session ends before
	testnet.Eventually(t, 2*time.Minute, func() bool { return r.state(frr4).OverLimit }, "the end of the session")
	most := (peak(t, r.child.PID()) - before) / n
	t.Logf("%d bytes a route that it may tell, at the peak", most)
	if most > 2*4<<10 {
		t.Error("the limit does not bound the memory")
	}
}

// peak is the most memory that a process has had, in bytes.
func peak(t *testing.T, pid int) (n int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, is := strings.CutPrefix(line, "VmHWM:"); is {
			_, _ = fmt.Sscan(rest, &n)
		}
	}
	return n << 10
}
