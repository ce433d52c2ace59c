package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/byhand"
	"github.com/manycast/manycast/tdpd/internal/flowspec"
	"github.com/manycast/manycast/tdpd/internal/routing"
)

func peering(t *testing.T) (*bgp.Fake, *Peering, Asker) {
	t.Helper()
	f := bgp.NewFake()
	base := bgp.Desired{AS: 65000, RouterID: netip.MustParseAddr("1.1.1.1"), Neighbors: []bgp.Neighbor{{Address: netip.MustParseAddr("10.0.1.2"), AS: 65001, Families: []bgp.Family{bgp.IPv4Unicast}}}}
	l := routing.New(routing.Options{Speaker: f, Base: base, Announcing: announcing.Config{Patience: time.Second}, Log: slog.New(slog.DiscardHandler)})
	background(t, l.Run)
	p := &Peering{Router: "r1", Base: base, Speaker: f, Routing: l, Where: "own", Restarts: func() uint64 { return 3 }, File: filepath.Join(t.TempDir(), "announced")}
	return f, p, AskBGP(asker{}, "r1", p)
}

func askBGP(t *testing.T, a Asker, r *tdpdv1.BGPRequest) (*tdpdv1.BGPAnswer, error) {
	t.Helper()
	answer, err := a.Ask(t.Context(), &tdpdv1.Request{About: &tdpdv1.Request_Bgp{Bgp: r}})
	if err == nil && answer.GetRouter() != "r1" {
		t.Errorf("%v answers", answer.GetRouter())
	}
	return answer.GetBgp(), err
}

func announce(p *tdpdv1.BGPPath) *tdpdv1.BGPRequest {
	return &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Announce{Announce: p}}
}

func withdraw(p *tdpdv1.BGPPath) *tdpdv1.BGPRequest {
	return &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Withdraw{Withdraw: p}}
}

// TestBGPByHand: what is announced is at the speaker, shown, refused of neighbors, and kept; what cannot be is none of it.
func TestBGPByHand(t *testing.T) {
	f, p, a := peering(t)
	med := uint32(5)
	for _, r := range []*tdpdv1.BGPRequest{
		announce(&tdpdv1.BGPPath{Prefix: "192.0.2.80/32", Med: &med, Prepend: 2, Communities: []string{"graceful-shutdown"}, NextHop: "10.0.0.9"}),
		announce(&tdpdv1.BGPPath{Prefix: "10.9.0.80/32", Labelled: true, Label: 1000}),
	} {
		if answer, err := askBGP(t, a, r); err != nil || answer.GetDone().GetWhat() != "announced" {
			t.Fatal(answer, err)
		}
	}
	d, _ := f.Desired()
	if len(d.Unicast) != 1 || *d.Unicast[0].MED != 5 || d.Unicast[0].Prepend != 2 || d.Unicast[0].Communities[0] != bgp.GracefulShutdown || len(d.Labelled) != 1 || d.Labelled[0].Label != 1000 ||
		len(d.VIPs) != 1 || d.VIPs[0] != d.Unicast[0].Prefix || len(d.Neighbors) != 1 {
		t.Errorf("%+v", d)
	}
	answer, err := askBGP(t, a, &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Routes{Routes: &tdpdv1.BGPRoutesRequest{Family: "ipv4-labelled"}}})
	if paths := answer.GetRoutes().GetPaths(); err != nil || len(paths) != 1 || paths[0].GetLabel() != 1000 || !paths[0].GetLabelled() || paths[0].GetNextHop() != "" {
		t.Errorf("%v, %v", answer, err)
	}
	for text, path := range map[string]*tdpdv1.BGPPath{
		"prefix": {Prefix: "web"}, "without bits": {Prefix: "10.0.0.1/8"}, "default route": {Prefix: "::/0"}, "community": {Prefix: "10.0.0.0/8", Communities: []string{"x"}},
		"next hop": {Prefix: "10.0.0.0/8", NextHop: "x"}, "prepend": {Prefix: "10.0.0.0/8", Prepend: 1<<32 - 1}, "label": {Prefix: "10.0.0.0/8", Labelled: true, Label: 1 << 20},
	} {
		if _, err := askBGP(t, a, announce(path)); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v", path, err)
		}
	}
	if _, err := askBGP(t, a, withdraw(&tdpdv1.BGPPath{Prefix: "10.9.0.80/32"})); err == nil || !strings.Contains(err.Error(), "not announced by hand") {
		t.Errorf("the one without a label: %v", err)
	}
	if answer, err := askBGP(t, a, withdraw(&tdpdv1.BGPPath{Prefix: "10.9.0.80/32", Labelled: true})); err != nil || answer.GetDone().GetWhat() != "withdrawn" {
		t.Error(answer, err)
	}
	kept, err := byhand.Load(p.File)
	if d, _ := f.Desired(); err != nil || len(d.Labelled) != 0 || len(kept.Unicast) != 1 || len(kept.Labelled) != 0 {
		t.Errorf("%+v, %v; kept %+v", d, err, kept)
	}
	f.Fail(errors.New("it is away"))
	if _, err := askBGP(t, a, announce(&tdpdv1.BGPPath{Prefix: "192.0.2.81/32"})); err == nil || !strings.Contains(err.Error(), "goes on trying: it is away") {
		t.Error(err)
	}
	if kept, err := byhand.Load(p.File); err != nil || len(kept.Unicast) != 2 {
		t.Errorf("%+v, %v", kept, err)
	}
}

func TestBGPAnswers(t *testing.T) {
	f, _, a := peering(t)
	neighbors := &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Neighbors{Neighbors: &tdpdv1.BGPNeighborsRequest{}}}
	var answer *tdpdv1.BGPAnswer
	for len(answer.GetNeighbors().GetNeighbors()) == 0 && t.Context().Err() == nil { // the loop has yet to begin
		answer, _ = askBGP(t, a, neighbors)
	}
	n := answer.GetNeighbors()
	if one := n.GetNeighbors()[0]; n.GetAs() != 65000 || n.GetSpeaker() != "own" || n.GetSpeakerRestarts() != 3 || one.GetAddress() != "10.0.1.2" || one.GetState() != "established" ||
		one.GetSinceMs() != -1 || one.GetFamilies()[0].GetName() != "ipv4-unicast" {
		t.Errorf("%v", n)
	}
	clear := func(a string) *tdpdv1.BGPRequest {
		return &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Clear{Clear: &tdpdv1.BGPClearRequest{Neighbor: a}}}
	}
	if answer, err := askBGP(t, a, clear("10.0.1.2")); err != nil || answer.GetDone().GetWhat() != "cleared" || len(f.Cleared()) != 1 {
		t.Error(answer, err)
	}
	routes := func(r *tdpdv1.BGPRoutesRequest) *tdpdv1.BGPRequest {
		return &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Routes{Routes: r}}
	}
	for want, r := range map[string]*tdpdv1.BGPRequest{
		"10.0.1.3: there is no such neighbor": clear("10.0.1.3"), "want its address": clear("web"), "address family": routes(&tdpdv1.BGPRoutesRequest{}), "to which neighbor": routes(&tdpdv1.BGPRoutesRequest{Family: "ipv4-unicast", Told: true}),
		"want one of ipv4-unicast": routes(&tdpdv1.BGPRoutesRequest{Family: "ipv4-unicast", Prefix: "::/0"}), "older release": {},
	} {
		if _, err := askBGP(t, a, r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", r, err, want)
		}
	}
	// What is not about BGP is the router's; a router without it says so.
	if answer, err := a.Ask(t.Context(), &tdpdv1.Request{About: &tdpdv1.Request_Status{}}); err != nil || answer.GetStatus().GetRouterId() != "2.2.2.2" {
		t.Error(answer, err)
	}
	if _, err := AskBGP(asker{}, "r1", nil).Ask(context.Background(), &tdpdv1.Request{About: &tdpdv1.Request_Bgp{Bgp: neighbors}}); err == nil || !strings.Contains(err.Error(), "bgp.as") {
		t.Error(err)
	}
	if changesBGP(&tdpdv1.Request{About: &tdpdv1.Request_Bgp{Bgp: neighbors}}) || !changesBGP(&tdpdv1.Request{About: &tdpdv1.Request_Bgp{Bgp: clear("10.0.1.2")}}) {
		t.Error("which requests change something")
	}
}

// TestRoutesArePaged: one answer has so many paths, and says that there are more.
func TestRoutesArePaged(t *testing.T) {
	f := bgp.NewFake()
	a := AskBGP(asker{}, "r1", &Peering{Router: "r1", Speaker: f})
	d := bgp.Desired{}
	for i := range routesMost + 1 {
		d.Unicast = append(d.Unicast, bgp.Path{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)})
	}
	if err := f.Apply(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[uint32]int{0: routesMost, 5: 5, routesMost + 1: routesMost} {
		answer, err := askBGP(t, a, &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Routes{Routes: &tdpdv1.BGPRoutesRequest{Family: "ipv4-unicast", Limit: limit}}})
		if err != nil || len(answer.GetRoutes().GetPaths()) != want || !answer.GetRoutes().GetMore() {
			t.Errorf("%d: %d, %v, %v", limit, len(answer.GetRoutes().GetPaths()), answer.GetRoutes().GetMore(), err)
		}
	}
}

// TestBGPMetrics: what a router announces, tells in rules and leaves out, and how its sessions are.
func TestBGPMetrics(t *testing.T) {
	f := bgp.NewFake()
	vips := []netip.Addr{netip.MustParseAddr("192.0.2.80"), netip.MustParseAddr("192.0.2.81")}
	l := routing.New(routing.Options{
		Speaker: f, Log: slog.New(slog.DiscardHandler), VIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, FlowSpec: flowspec.Config{Most: 10},
		Base:       bgp.Desired{AS: 65000, Neighbors: []bgp.Neighbor{{Address: netip.MustParseAddr("10.0.1.2"), AS: 65001}}},
		Announcing: announcing.Config{Patience: time.Second, Flaps: announcing.Flaps{First: time.Hour, Max: time.Hour, Forget: time.Hour}},
	})
	background(t, l.Run)
	service := func(vip netip.Addr, r announcing.Reach) announcing.Service {
		return announcing.Service{Name: vip.String(), VIPs: []netip.Addr{vip}, Reach: r}
	}
	users := []flowspec.Users{{Service: "web", VIPs: vips, Four: []flowspec.Bound{
		{Portion: portion.MustParse("0.0.0.0/1"), Server: netip.MustParseAddr("10.9.0.80")},
		{Portion: portion.MustParse("128.0.0.1/128.0.0.1"), Server: netip.MustParseAddr("10.9.0.81")},
	}}}
	for _, reach := range []announcing.Reach{announcing.Reached, announcing.NoServer} {
		l.Say(routing.View{Services: []announcing.Service{service(vips[0], announcing.Reached), service(vips[1], reach)}, Users: users})
		testnet.Eventually(t, 10*time.Second, func() bool {
			s, err := l.Status(t.Context())
			return err == nil && len(s.Announcing.VIPs) == 2 && s.Announcing.VIPs[1].Reach == reach && !s.Moving
		}, "the view")
	}
	p := &Peering{Router: "r1", Speaker: f, Routing: l, Restarts: func() uint64 { return 3 }}
	answer, err := askBGP(t, AskBGP(asker{}, "r1", p), &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Left{Left: &tdpdv1.BGPLeftRequest{}}})
	left := &tdpdv1.BGPLeft{
		Portions: []*tdpdv1.BGPLeftPortion{{Service: "web", Portion: "128.0.0.1/128.0.0.1", Server: "10.9.0.81", Reason: "not_prefix"}}, Reasons: map[string]uint64{"not_prefix": 1},
	}
	if err != nil || !proto.Equal(answer.GetLeft(), left) {
		t.Errorf("left: %v, %v; want %v", answer.GetLeft(), err, left)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(p.Metrics())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "manycast_tdpd_")
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"bgp_vips": 2, "bgp_vips_announced": 1, "bgp_vips_damped": 1, "bgp_vips_unreached": 0, "bgp_announced_total": 2, "bgp_withdrawn_total": 1, "bgp_damped_total": 1, "bgp_hosts": 0,
		"bgp_phase in": 1, "bgp_phase out": 0, "bgp_session_established 10.0.1.2": 1, "bgp_neighbor_out 10.0.1.2": 0, "bgp_speaker_answers": 1, "bgp_speaker_restarts_total": 3,
		"flowspec_rules_wanted": 1, "flowspec_rules_told": 1, "flowspec_rules_moving": 0, "flowspec_portions_left not_prefix": 1, "flowspec_steps_skipped_total": 0,
	} {
		if is, there := got[name]; !there || is != want {
			t.Errorf("%s is %v (%v), want %v", name, is, there, want)
		}
	}
}
