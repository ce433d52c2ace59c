package service

import (
	"net/netip"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// TestSessionsNeedAllTheirHops: the route to a peer's address gets none of its labels while GTSM holds the session to all hops, be it a
// host route or one that holds others, too; without GTSM it does.
func TestSessionsNeedAllTheirHops(t *testing.T) {
	for _, gtsm := range []bool{true, false} {
		for _, to := range []netip.Prefix{prefix("9.9.9.9/32"), prefix("9.9.0.0/16")} {
			s, c := passive(t, func(o *Options) { o.Config.Hello.GTSM = gtsm }), &recorder{remote: addr("9.9.9.9")}
			greet(s, false)
			connect(s, c)
			elsewhere := prefix("8.8.8.0/24")
			s.event(start, transport.Received{Conn: c, Sender: other, Messages: []transport.Message{
				{Message: wire.KeepAlive{}}, {Message: wire.LabelMapping{FEC: wire.FEC{wire.Prefix{Prefix: to}, wire.Prefix{Prefix: elsewhere}}, Label: 200}},
			}})
			s.routesChanged(start, routes.Change{Full: true,
				Interfaces: map[int]*routes.Interface{2: iface(2, "a", "10.0.0.1/24")},
				Routes:     map[netip.Prefix]*routes.Route{to: via("10.0.0.9", 2), elsewhere: via("10.0.0.9", 2)},
			})
			s.flush(start)
			has := func() (pushed, other bool) {
				state := s.Kernel.(*kernel.Fake).State()
				return len(state.Prefixes[to]) > 0, len(state.Prefixes[elsewhere]) > 0
			}
			if pushed, other := has(); pushed == gtsm || !other {
				t.Errorf("GTSM %v, %v: a label on packets to the session %v, to others %v", gtsm, to, pushed, other)
			}
			if f := s.fecOf(to); f.GetPlain() != gtsm || (f.GetHops()[0].GetOperation() == "keep") != gtsm {
				t.Errorf("GTSM %v, %v is told as %v", gtsm, to, f)
			}
			if gtsm && to.IsSingleIP() { // a shorter one leads there now
				s.routesChanged(start, routes.Change{Routes: map[netip.Prefix]*routes.Route{to: nil, elsewhere: nil, prefix("9.0.0.0/8"): via("10.0.0.9", 2)}})
				if !s.plain[prefix("9.0.0.0/8")] {
					t.Errorf("routes without labels: %v", s.plain)
				}
			}
		}
	}
}
