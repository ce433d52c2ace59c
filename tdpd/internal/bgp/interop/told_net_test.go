package interop

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgp/sockets"
	"github.com/manycast/manycast/tdpd/internal/routing"
)

// TestNetDrainWaitsForNeighbors: the link loses all when a drain begins. The speaker has sent its update and is silent, and the drain waits for as long as FRR has not
// got it; then it goes on, and is not forced to.
func TestNetDrainWaitsForNeighbors(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	n := r.neighbor(bgp.IPv4Unicast)
	n.Hold, n.Keepalive = time.Minute, 20*time.Second
	r.d.Neighbors, r.d.VIPs = []bgp.Neighbor{n}, nil
	f := r.frr(frrConfig{families: family("ipv4 unicast", us4)})
	l := routing.New(routing.Options{
		Speaker: r.client, Base: r.d, VIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Announcing: announcing.Config{Soft: announcing.Soft{Communities: []bgp.Community{bgp.GracefulShutdown}}, Settle: time.Millisecond, Patience: time.Minute},
		Underway: func(d bgp.Desired) (is bool, err error) {
			err = r.us.Do(func() (err error) { is, err = sockets.Underway(d); return err })
			return is, err
		},
		Log: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	defer func() { stop(); <-ended }()
	progress := func() announcing.Progress {
		p, err := l.Progress(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	l.Say(routing.View{Services: []announcing.Service{{Name: "web", VIPs: []netip.Addr{vip4.Addr()}}}})
	r.eventually(func() bool { return progress().Phase == announcing.In }, "in")
	r.eventually(func() bool { return len(f.routes("ipv4 unicast", vip4)) == 1 }, "the VIP at FRR")

	cut(t, r.peer)
	before := r.state(frr4).Sent.Updates
	if err := l.Drain(ctx, false); err != nil {
		t.Fatal(err)
	}
	r.eventually(func() bool { return r.state(frr4).Sent.Updates > before }, "the update")
	for begun := time.Now(); time.Since(begun) < 2*time.Second; {
		if p := progress(); p.Phase != announcing.Leaving || p.Waits != announcing.ForTelling {
			t.Fatalf("%+v, and FRR has not heard of it", p)
		}
	}
	heal(t, r.peer)
	r.eventually(func() bool {
		p := progress()
		if p.Forced {
			t.Errorf("%+v", p)
		}
		return p.Phase == announcing.Out
	}, "out")
	r.eventually(func() bool { return len(f.routes("ipv4 unicast", vip4)) == 0 }, "nothing at FRR")
	if s := r.state(frr4); s.State != bgp.Established {
		t.Errorf("%+v", s)
	}
}
