package edge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/byhand"
	"github.com/manycast/manycast/tdpd/internal/routing"
)

// routesMost is how many paths one answer has.
const routesMost = 2000

// Routing is the loop beside the speaker; a routing.Loop is one.
type Routing interface {
	Change(ctx context.Context, change func(base *bgp.Desired)) error
	Status(ctx context.Context) (routing.Status, error)
}

// Peering answers what is asked about BGP, and announces what the operator says by hand.
type Peering struct {
	Router   string      // name
	Base     bgp.Desired // of the configuration
	Speaker  bgp.Speaker
	Routing  Routing
	Where    string        // who speaks
	Restarts func() uint64 // times that the router's own speaker has ended by itself
	File     string        // where what is announced by hand is kept
	Paths    byhand.Paths  // that are; Peering's own from now on

	mutex sync.Mutex
}

// AskBGP has a router's Asker answer about BGP, too; p may be nil: the router does not speak it.
func AskBGP(a Asker, router string, p *Peering) Asker { return bgpAsker{a, router, p} }

type bgpAsker struct {
	Asker
	router  string
	peering *Peering
}

func (a bgpAsker) Ask(ctx context.Context, r *tdpdv1.Request) (*tdpdv1.Answer, error) {
	about := r.GetBgp()
	switch {
	case about == nil:
		return a.Asker.Ask(ctx, r)
	case a.peering != nil:
		answer, err := a.peering.ask(ctx, about)
		return &tdpdv1.Answer{Router: a.router, About: &tdpdv1.Answer_Bgp{Bgp: answer}}, err
	}
	return &tdpdv1.Answer{Router: a.router}, bgp.ErrNone
}

// changesBGP says whether a request is about a change.
func changesBGP(r *tdpdv1.Request) bool {
	switch r.GetBgp().GetAbout().(type) {
	case *tdpdv1.BGPRequest_Announce, *tdpdv1.BGPRequest_Withdraw, *tdpdv1.BGPRequest_Clear:
		return true
	}
	return false
}

func (p *Peering) ask(ctx context.Context, r *tdpdv1.BGPRequest) (*tdpdv1.BGPAnswer, error) {
	switch about := r.GetAbout().(type) {
	case *tdpdv1.BGPRequest_Neighbors:
		return p.neighbors(ctx)
	case *tdpdv1.BGPRequest_Routes:
		return p.routes(ctx, about.Routes)
	case *tdpdv1.BGPRequest_Left:
		return p.left(ctx)
	case *tdpdv1.BGPRequest_Announce:
		return p.announce(ctx, about.Announce)
	case *tdpdv1.BGPRequest_Withdraw:
		return p.withdraw(ctx, about.Withdraw)
	case *tdpdv1.BGPRequest_Clear:
		return p.clear(ctx, about.Clear)
	}
	return nil, errors.New("a request about nothing of BGP that this router knows: is it of an older release?")
}

func done(what string) *tdpdv1.BGPAnswer {
	return &tdpdv1.BGPAnswer{About: &tdpdv1.BGPAnswer_Done{Done: &tdpdv1.BGPDone{What: what}}}
}

func (p *Peering) neighbors(ctx context.Context) (*tdpdv1.BGPAnswer, error) {
	out := &tdpdv1.BGPNeighbors{As: p.Base.AS, RouterId: p.Base.RouterID.String(), Speaker: p.Where, SpeakerRestarts: p.Restarts()}
	st, err := p.Routing.Status(ctx)
	if err != nil {
		return nil, err
	}
	out.Learned, out.Refused = uint32(st.Learned), refusals(st)
	all, err := p.Speaker.Neighbors(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, n := range all {
		out.Neighbors = append(out.Neighbors, neighborMessage(now, n))
	}
	return &tdpdv1.BGPAnswer{About: &tdpdv1.BGPAnswer_Neighbors{Neighbors: out}}, nil
}

// left is whom FlowSpec rules leave to the director.
func (p *Peering) left(ctx context.Context) (*tdpdv1.BGPAnswer, error) {
	st, err := p.Routing.Status(ctx)
	if err != nil {
		return nil, err
	}
	out := &tdpdv1.BGPLeft{Reasons: map[string]uint64{}}
	for why, n := range st.Wanted.Reasons {
		out.Reasons[why.String()] = uint64(n)
	}
	for _, l := range st.Wanted.Left {
		one := &tdpdv1.BGPLeftPortion{Service: l.Service, Portion: l.Portion.String(), Reason: l.Why.String()}
		if l.Server.IsValid() {
			one.Server = l.Server.String()
		}
		out.Portions = append(out.Portions, one)
	}
	return &tdpdv1.BGPAnswer{About: &tdpdv1.BGPAnswer_Left{Left: out}}, nil
}

// refusals are paths that were not taken, by why.
func refusals(st routing.Status) map[string]uint64 {
	out := map[string]uint64{}
	maps.Copy(out, st.Refused)
	for why, n := range st.Counts {
		if r := bgppolicy.Reason(why); r != bgppolicy.Passes && n > 0 {
			out[r.String()] += n
		}
	}
	return out
}

func neighborMessage(now time.Time, n bgp.NeighborState) *tdpdv1.BGPNeighbor {
	m := &tdpdv1.BGPNeighbor{
		Address: n.Address.String(), As: n.AS, State: string(n.State), SinceMs: -1, Flaps: n.Flaps, Restarting: n.Restarting, OverLimit: n.OverLimit, Down: n.Down,
		HoldMs: n.Hold.Milliseconds(), UpdatesSent: n.Sent.Updates, UpdatesReceived: n.Received.Updates,
	}
	if n.RouterID.IsValid() {
		m.RouterId = n.RouterID.String()
	}
	if !n.Since.IsZero() {
		m.SinceMs = max(now.Sub(n.Since), 0).Milliseconds()
	}
	for _, f := range n.Families {
		m.Families = append(m.Families, &tdpdv1.BGPFamily{Name: f.Family.String(), Agreed: f.Agreed, Received: f.Received})
	}
	return m
}

func (p *Peering) routes(ctx context.Context, r *tdpdv1.BGPRoutesRequest) (*tdpdv1.BGPAnswer, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	limit := int(r.GetLimit())
	if limit == 0 || limit > routesMost {
		limit = routesMost
	}
	out := &tdpdv1.BGPRoutes{}
	err = p.Speaker.Routes(ctx, q, func(one bgp.Route) bool {
		if out.More = len(out.Paths) == limit; out.More {
			return false
		}
		out.Paths = append(out.Paths, pathMessage(one))
		return true
	})
	if err != nil {
		return nil, err
	}
	return &tdpdv1.BGPAnswer{About: &tdpdv1.BGPAnswer_Routes{Routes: out}}, nil
}

func query(r *tdpdv1.BGPRoutesRequest) (q bgp.Query, err error) {
	if q.Family, err = bgp.ParseFamily(r.GetFamily()); err != nil {
		return q, err
	}
	if r.GetPrefix() != "" {
		if q.Prefix, err = netip.ParsePrefix(r.GetPrefix()); err != nil || q.Prefix.Addr().Is4() != q.Family.Is4() {
			return q, fmt.Errorf("prefix %q: want one of %v", r.GetPrefix(), q.Family)
		}
		q.Prefix = q.Prefix.Masked()
	}
	if r.GetNeighbor() != "" {
		if q.Neighbor, err = netip.ParseAddr(r.GetNeighbor()); err != nil {
			return q, fmt.Errorf("neighbor %q: want its address", r.GetNeighbor())
		}
	}
	q.Told = r.GetTold()
	if q.Told && !q.Neighbor.IsValid() {
		return q, errors.New("told: to which neighbor?")
	}
	return q, nil
}

func pathMessage(r bgp.Route) *tdpdv1.BGPPath {
	m := &tdpdv1.BGPPath{Best: r.Best, Filtered: r.Filtered}
	switch {
	case r.Unicast != nil:
		attributesMessage(m, *r.Unicast)
	case r.Labelled != nil:
		attributesMessage(m, r.Labelled.Path)
		m.Labelled, m.Label = true, r.Labelled.Label
	case r.FlowRule != nil:
		f := *r.FlowRule
		m.Prefix = f.Destination.String()
		m.Rule = &tdpdv1.BGPRule{Protocol: uint32(f.Protocol), Port: uint32(f.Port)}
		if f.Source.IsValid() {
			m.Rule.Source = f.Source.String()
		}
		if f.RedirectIP.IsValid() {
			m.Rule.RedirectIp = f.RedirectIP.String()
		}
		if f.RedirectVRF != (bgp.RouteTarget{}) {
			m.Rule.RedirectVrf = fmt.Sprintf("%d:%d", f.RedirectVRF.AS, f.RedirectVRF.Value)
		}
		if f.From.IsValid() {
			m.Neighbor = f.From.String()
		}
	}
	return m
}

func attributesMessage(m *tdpdv1.BGPPath, p bgp.Path) {
	m.Prefix, m.AsPath, m.Med, m.LocalPref, m.Prepend, m.Stale = p.Prefix.String(), p.ASPath, p.MED, p.LocalPref, uint32(p.Prepend), p.Stale
	if p.NextHop.IsValid() {
		m.NextHop = p.NextHop.String()
	}
	if p.From.IsValid() {
		m.Neighbor = p.From.String()
	}
	for _, c := range p.Communities {
		m.Communities = append(m.Communities, c.String())
	}
}

// pathOf reads what the operator announces.
func pathOf(m *tdpdv1.BGPPath) (p bgp.Path, err error) {
	if p.Prefix, err = netip.ParsePrefix(m.GetPrefix()); err != nil {
		return p, fmt.Errorf("prefix %q: want one such as 192.0.2.80/32", m.GetPrefix())
	}
	if m.GetNextHop() != "" {
		if p.NextHop, err = netip.ParseAddr(m.GetNextHop()); err != nil {
			return p, fmt.Errorf("next hop %q: want an address", m.GetNextHop())
		}
	}
	for _, text := range m.GetCommunities() {
		c, err := bgp.ParseCommunity(text)
		if err != nil {
			return p, err
		}
		p.Communities = append(p.Communities, c)
	}
	p.MED, p.LocalPref, p.Prepend = m.Med, m.LocalPref, int(min(m.GetPrepend(), 1<<16))
	return p, nil
}

func (p *Peering) announce(ctx context.Context, m *tdpdv1.BGPPath) (*tdpdv1.BGPAnswer, error) {
	path, err := pathOf(m)
	if err != nil {
		return nil, err
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	var next byhand.Paths
	if m.GetLabelled() {
		next, err = p.Paths.WithLabel(bgp.LabelledPath{Path: path, Label: m.GetLabel()})
	} else {
		next, err = p.Paths.With(path)
	}
	if err != nil {
		return nil, err
	}
	return done("announced"), p.change(ctx, next)
}

func (p *Peering) withdraw(ctx context.Context, m *tdpdv1.BGPPath) (*tdpdv1.BGPAnswer, error) {
	prefix, err := netip.ParsePrefix(m.GetPrefix())
	if err != nil {
		return nil, fmt.Errorf("prefix %q: want one such as 192.0.2.80/32", m.GetPrefix())
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if !p.Paths.Has(prefix, m.GetLabelled()) {
		return nil, fmt.Errorf("router %s: %v was not announced by hand", p.Router, prefix)
	}
	return done("withdrawn"), p.change(ctx, p.Paths.Without(prefix, m.GetLabelled()))
}

// change keeps what is announced, and has the speaker have it.
func (p *Peering) change(ctx context.Context, next byhand.Paths) error {
	if err := next.Save(p.File); err != nil {
		return err
	}
	p.Paths = next
	err := p.Routing.Change(ctx, func(base *bgp.Desired) { *base = next.Into(p.Base) })
	if err != nil {
		return fmt.Errorf("router %s keeps it, and goes on trying: %w", p.Router, err)
	}
	return nil
}

func (p *Peering) clear(ctx context.Context, r *tdpdv1.BGPClearRequest) (*tdpdv1.BGPAnswer, error) {
	a, err := netip.ParseAddr(r.GetNeighbor())
	if err != nil {
		return nil, fmt.Errorf("neighbor %q: want its address", r.GetNeighbor())
	}
	return done("cleared"), p.Speaker.Clear(ctx, a, r.GetSoft())
}
