package interop

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/routing"
)

// TestNetServerHost: a server's host route comes to FRR with its label softly, then as it is to be; it goes the other way round, and comes again. No VIP does.
func TestNetServerHost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	server := netip.MustParsePrefix("10.9.0.80/32")
	plainFamily := r.neighbor(bgp.IPv4Unicast) // by which a VIP would come
	plainFamily.Address = frr6
	r.d.Neighbors = []bgp.Neighbor{r.neighbor(bgp.IPv4Labelled), plainFamily}
	f := r.frr(frrConfig{v6: []string{}, families: family("ipv4 labeled-unicast", us4) + family("ipv4 unicast", us6)})
	r.apply()
	r.established(frr4)
	r.established(frr6)
	l := routing.New(routing.Options{
		Speaker: r.client, Base: r.d, VIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Announcing: announcing.Config{
			Server: true, Soft: announcing.Soft{Communities: []bgp.Community{bgp.GracefulShutdown}, Prepend: 2}, Settle: 3 * time.Second, Patience: time.Minute,
		},
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	l.Say(routing.View{
		Services: []announcing.Service{{Name: "web", VIPs: []netip.Addr{vip4.Addr()}}}, Hosts: []bgp.LabelledPath{{Path: bgp.Path{Prefix: server}, Label: 1080}},
	})
	const soft, plain = "4200000001 4200000001 4200000001 graceful-shutdown", "4200000001 "
	at := func(want string) func() bool {
		return func() bool {
			p := f.routes("ipv4 labeled-unicast", server)
			return len(p) == 1 && p[0].Label == 1080 && p[0].AsPath.String+" "+p[0].Community.String == want
		}
	}
	r.eventually(at(soft), "softly at FRR")
	r.eventually(at(plain), "as it is to be")
	for range 2 {
		if err := l.Drain(ctx, false); err != nil {
			t.Fatal(err)
		}
		r.eventually(at(soft), "softly again")
		r.eventually(func() bool { return len(f.routes("ipv4 labeled-unicast", server)) == 0 }, "withdrawn")
		r.eventually(func() bool {
			p, err := l.Progress(ctx)
			return err == nil && p.Phase == announcing.Out && !p.Forced
		}, "out")
		if err := l.Drain(ctx, true); err != nil {
			t.Fatal(err)
		}
		r.eventually(at(plain), "back")
	}
	if p := f.routes("ipv4 unicast", vip4); len(p) > 0 {
		t.Errorf("the VIP is announced: %+v", p)
	}
}
