package interop

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/flowspec"
	"github.com/manycast/manycast/tdpd/internal/routing"
)

// TestNetRouting: what routing's loop wants comes to FRR, in its order: a VIP softly, then as it is to be, users' servers as rules that it decodes, a
// server's label; what FRR tells comes back, a part of the VIP's prefix does not. A drain goes the other way, and a speaker that is killed has all
// again.
func TestNetRouting(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	server, far := netip.MustParsePrefix("10.9.0.80/32"), netip.MustParsePrefix("10.70.0.0/16")
	flows, labels := r.neighbor(bgp.IPv4Unicast, bgp.IPv4FlowSpec), r.neighbor(bgp.IPv4Labelled)
	flows.Import, labels.Address = "all", frr6
	r.d.Neighbors = []bgp.Neighbor{flows, labels}
	r.d.VIPs = nil
	r.d.Policies = []bgp.Policy{{Name: "all", Rules: []bgp.PolicyRule{{}}}}
	f := r.frr(frrConfig{
		v6: []string{}, global: " no bgp network import-check\n",
		families: family("ipv4 unicast", us4, "network 10.70.0.0/16", "network 192.0.2.80/32", "network 0.0.0.0/0") +
			family("ipv4 flowspec", us4) + family("ipv4 labeled-unicast", us6),
	})
	l := routing.New(routing.Options{
		Speaker: r.client, Base: r.d, VIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Announcing: announcing.Config{
			Soft: announcing.Soft{Communities: []bgp.Community{bgp.GracefulShutdown}}, Settle: 3 * time.Second, Patience: time.Minute,
		},
		FlowSpec: flowspec.Config{Most: 100},
		Follow:   bgppolicy.FollowConfig{Import: bgppolicy.Policy{Rules: []bgppolicy.Rule{{}}}, Restart: time.Minute},
		Log:      slog.New(slog.NewTextHandler(r.log, nil)),
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
	to := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, n}) }
	l.Say(routing.View{
		Services: []announcing.Service{{Name: "web", VIPs: []netip.Addr{vip4.Addr()}}},
		Users: []flowspec.Users{{Service: "web", VIPs: []netip.Addr{vip4.Addr()}, Four: []flowspec.Bound{
			{Portion: portion.MustParse("128.0.0.0/1"), Server: to(81)}, {Portion: portion.MustParse("0.0.0.0/2"), Server: to(80)}, {Portion: portion.MustParse("64.0.0.0/2"), Server: to(80)},
		}}},
		Hosts: []bgp.LabelledPath{{Path: bgp.Path{Prefix: server}, Label: 1080}},
	})
	vip := func(community string) func() bool {
		return func() bool {
			p := f.routes("ipv4 unicast", vip4)
			for _, one := range p {
				if one.Valid && one.AsPath.String == fmt.Sprint(uint32(ourAS)) {
					return one.Community.String == community
				}
			}
			return false
		}
	}
	rules := func() string { return strings.Join(strings.Fields(f.vty("show bgp ipv4 flowspec detail")), " ") }
	steered := func() bool {
		text := rules()
		return strings.Contains(text, "Destination Address 192.0.2.80/32 Source Address 0.0.0.0/1 NH:10.9.0.80:0") &&
			strings.Contains(text, "Destination Address 192.0.2.80/32 Source Address 128.0.0.0/1 NH:10.9.0.81:0")
	}
	labelled := func() bool {
		p := f.routes("ipv4 labeled-unicast", server)
		return len(p) == 1 && p[0].Label == 1080
	}
	r.eventually(vip("graceful-shutdown"), "the VIP at FRR, softly")
	r.eventually(vip(""), "the VIP at FRR, as it is to be")
	r.eventually(steered, "rules as FRR decodes them")
	r.eventually(labelled, "the server's label at FRR")
	learned := false
	for end := time.After(soon); !learned; {
		select {
		case c := <-l.Learned():
			for _, one := range c.Added {
				if learned = one.Prefix == far && one.NextHop == frr4; !learned {
					t.Errorf("%v was taken", one.Prefix)
				}
			}
		case <-end:
			t.Fatal("nothing is learned")
		}
	}

	if p := r.child.PID(); p != 0 {
		if out, err := r.us.Run("kill", "-9", fmt.Sprint(p)); err != nil {
			t.Fatal(err, out)
		}
	}
	r.eventually(func() bool { return r.child.Restarts() > 0 && r.state(frr4).State == bgp.Established }, "another speaker")
	r.eventually(func() bool { return vip("")() && steered() && labelled() }, "all as it was")

	if err := l.Drain(ctx, false); err != nil {
		t.Fatal(err)
	}
	r.eventually(vip("graceful-shutdown"), "the VIP at FRR, softly again")
	if !steered() || !labelled() {
		t.Error("rules or labels go before the VIP does")
	}
	r.eventually(func() bool { return !vip("")() && !vip("graceful-shutdown")() }, "the VIP is withdrawn")
	r.eventually(func() bool {
		s, err := l.Status(ctx)
		return err == nil && s.Announcing.Phase == announcing.Out && !s.Announcing.Forced
	}, "out")
	r.eventually(func() bool { return !labelled() && !strings.Contains(rules(), "192.0.2.80") }, "nothing is left")
	if s := r.state(frr4); s.State != bgp.Established {
		t.Errorf("the session has ended with what it told: %+v", s)
	}
}
