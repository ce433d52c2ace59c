package interop

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgp/gobgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/routing"
)

// How long who is gone is waited for, and how long beyond that what it told is kept.
const (
	waited = 3 * time.Second
	beyond = 9 * time.Second
)

// TestNetLongLived: FRR is without our speaker, which does not come back. It keeps the VIP over the restart time and beyond, as the last resort then (RFC 9494), and not for ever.
func TestNetLongLived(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.d.Restart = bgp.Restart{Time: waited, LongLived: beyond, Deferral: time.Second}
	r.d.Unicast = []bgp.Path{{Prefix: vip4}}
	r.d.Neighbors = []bgp.Neighbor{r.neighbor(bgp.IPv4Unicast)}
	f := r.frr(frrConfig{global: " bgp long-lived-graceful-restart stale-time 100\n", families: family("ipv4 unicast", us4)})
	r.apply()
	r.eventually(func() bool { p := f.routes("ipv4 unicast", vip4); return len(p) == 1 && !p[0].Stale }, "the VIP at FRR")
	speaker := r.child.PID()
	r.stop(true)
	begun := time.Now()
	if err := unix.Kill(speaker, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.eventually(func() bool {
		p := f.routes("ipv4 unicast", vip4)
		return len(p) == 1 && p[0].Stale && p[0].Community.String == ""
	}, "it is kept")
	r.eventually(func() bool {
		p := f.routes("ipv4 unicast", vip4)
		return len(p) == 1 && p[0].Community.String == "llgr-stale"
	}, "it is the last resort")
	if took := time.Since(begun); took < waited {
		t.Errorf("the last resort after %v, by a restart time of %v", took, waited)
	}
	r.eventually(func() bool { return len(f.routes("ipv4 unicast", vip4)) == 0 }, "it goes")
	if took := time.Since(begun); took < waited+beyond {
		t.Errorf("gone after %v, want %v and %v more", took, waited, beyond)
	}
}

// TestNetLongLivedNeighbor: Debian's gobgpd is killed. What it told with labels is learned still, over the restart time and beyond, but for what is not to be kept so long; then all goes.
func TestNetLongLivedNeighbor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, socket := r.gobgpd(r.peer, `
[global.config]
as = 65001
router-id = "10.0.1.2"
[[neighbors]]
[neighbors.config]
neighbor-address = "10.0.1.1"
peer-as = 4200000001
[neighbors.graceful-restart.config]
enabled = true
restart-time = 3
long-lived-enabled = true
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "ipv4-labelled-unicast"
[neighbors.afi-safis.mp-graceful-restart.config]
enabled = true
[neighbors.afi-safis.long-lived-graceful-restart.config]
enabled = true
restart-time = 9
`)
	long, short := netip.MustParsePrefix("10.70.0.0/16"), netip.MustParsePrefix("10.71.0.0/16")
	r.d.Restart = bgp.Restart{Time: waited, LongLived: beyond, Deferral: time.Second}
	r.taking(everything)
	r.d.Neighbors[0].Families = []bgp.Family{bgp.IPv4Labelled}
	there, err := gobgp.New(gobgp.Options{Target: socket, Foreign: true, Log: slog.New(slog.NewTextHandler(r.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	l := routing.New(routing.Options{
		Speaker: r.client, Base: r.d, Announcing: announcing.Config{Patience: time.Minute}, Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Follow: bgppolicy.FollowConfig{Import: bgppolicy.Policy{Rules: []bgppolicy.Rule{{}}}, Restart: waited, LongLived: beyond},
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	defer func() { stop(); <-ended }()
	r.established(frr4)
	told := func(p netip.Prefix, c ...bgp.Community) bgp.LabelledPath {
		return bgp.LabelledPath{Path: bgp.Path{Prefix: p, Attributes: bgp.Attributes{Communities: c}}, Label: 1000}
	}
	all := bgp.Desired{AS: frrAS, RouterID: frr4, Labelled: []bgp.LabelledPath{told(long), told(short, bgp.NoLLGR)}}
	if err := there.Apply(ctx, all); err != nil {
		t.Fatal(err)
	}
	is := map[netip.Prefix]bool{} // whether it is stale
	until := func(what string, want map[netip.Prefix]bool) {
		t.Helper()
		for end := time.After(soon); !maps.Equal(is, want); {
			select {
			case c := <-l.Learned():
				for _, one := range slices.Concat(c.Added, c.Changed, c.Stale, c.Fresh) {
					is[one.Prefix] = one.Stale
				}
				for _, one := range c.Gone {
					delete(is, one)
				}
			case <-end:
				t.Fatalf("%s: stale %v, want %v", what, is, want)
			}
		}
	}
	until("told", map[netip.Prefix]bool{long: false, short: false})
	begun := time.Now()
	p.Signal(unix.SIGKILL)
	until("it is away", map[netip.Prefix]bool{long: true, short: true})
	until("beyond the restart time", map[netip.Prefix]bool{long: true})
	if took := time.Since(begun); took < waited {
		t.Errorf("after %v, by a restart time of %v", took, waited)
	}
	until("gone for good", map[netip.Prefix]bool{})
	if took := time.Since(begun); took < waited+beyond {
		t.Errorf("gone after %v, want %v and %v more", took, waited, beyond)
	}
}
