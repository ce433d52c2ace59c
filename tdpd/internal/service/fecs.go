package service

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/forwarding"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/page"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// askFECs finds which FECs are wanted.
func (s *Service) askFECs(r *tdpdv1.FECsRequest, answer *tdpdv1.Answer) (func(time.Time) error, error) {
	after, err := parsePrefix("after", r.GetAfter())
	only, errOnly := parsePrefix("prefix", r.GetPrefix())
	to, errTo := parseAddress(r.GetAddress())
	if err := errors.Join(err, errOnly, errTo); err != nil {
		return nil, err
	}
	limit := most(r.GetLimit())
	wants := func(p netip.Prefix) bool { return p.Compare(after) > 0 && (!only.IsValid() || p == only) }
	return func(time.Time) error {
		var all []netip.Prefix
		switch {
		case r.GetServers():
			all = page.Behind(s.fecs.Servers, netip.Prefix.Compare, wants, limit+1)
		case to.IsValid():
			if v, ok := s.follows(to); ok && wants(v.FEC) {
				all = []netip.Prefix{v.FEC}
			}
		case only.IsValid():
			if wants(only) && s.labels.Knows(only) {
				all = []netip.Prefix{only}
			}
		default:
			all = s.labels.FECs(after, limit+1)
		}
		answer.About = &tdpdv1.Answer_Fecs{Fecs: s.fecPage(all, limit)}
		return nil
	}, nil
}

// fecPage takes as many of all as have about limit bindings together.
func (s *Service) fecPage(all []netip.Prefix, limit int) *tdpdv1.FECs {
	out, size := &tdpdv1.FECs{}, 0
	for i, p := range all {
		if size >= limit {
			out.Next = all[i-1].String()
			break
		}
		f := s.fecOf(p)
		out.Fecs = append(out.Fecs, f)
		size += max(1, len(f.Remote)+len(f.Sent))
	}
	return out
}

func (s *Service) fecOf(p netip.Prefix) *tdpdv1.FEC {
	out := &tdpdv1.FEC{Prefix: p.String(), Server: s.fecs.IsServer(p)}
	if to, r := s.routeOf(p); r != nil {
		out.Route, out.Metric = to.String(), r.Metric
	}
	if v, ok := s.viewOf(p); ok {
		v.Plain = s.plain[p]
		out.Kind, out.Plain, out.Hops = v.Kind.String(), v.Plain, hopsOf(v)
	}
	b := s.labels.Bindings(p)
	out.Local = label(b.Local)
	for _, r := range b.Remote {
		out.Remote = append(out.Remote, &tdpdv1.Binding{Neighbor: r.Peer.String(), Label: uint32(r.Label), InUse: r.InUse, Stale: r.Stale})
	}
	for _, r := range b.Sent {
		out.Sent = append(out.Sent, &tdpdv1.Binding{Neighbor: r.Peer.String(), Label: uint32(r.Label), Leaves: r.Leaves})
	}
	return out
}

// routeOf is the route that a FEC follows: its own, or of a server the longest that leads to it.
func (s *Service) routeOf(p netip.Prefix) (netip.Prefix, *routes.Route) {
	if r := s.fecs.Table().Routes[p]; r != nil || !s.fecs.IsServer(p) {
		return p, r
	}
	return s.fecs.Table().Lookup(p.Addr())
}

// hopsOf are the next hops of a FEC, and what is done to packets that have no label yet.
func hopsOf(v labels.View) (out []*tdpdv1.NextHop) {
	for _, h := range v.Hops {
		n := &tdpdv1.NextHop{Via: text(h.Address), Interface: h.Interface, Neighbor: name(h.Peer)}
		switch {
		case h.Label == labels.NoLabel:
		case h.Label == wire.LabelImplicitNull, v.Plain:
			n.Operation = forwarding.Keep.String()
		default:
			n.Operation, n.Label = forwarding.Push.String(), label(h.Label)
		}
		out = append(out, n)
	}
	return out
}

// follows is the FEC that packets to an address follow.
func (s *Service) follows(a netip.Addr) (labels.View, bool) {
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, err := a.Prefix(bits)
		if err != nil {
			break
		}
		if v, ok := s.viewOf(p); ok {
			return v, true
		}
	}
	return labels.View{}, false
}

// label is nil where there is none.
func label(l wire.Label) *uint32 {
	if l == labels.NoLabel {
		return nil
	}
	n := uint32(l)
	return &n
}

// parsePrefix reads a prefix, a single address likewise; the zero Prefix is for no text.
func parsePrefix(field, text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, errAddr := netip.ParseAddr(text)
		if errAddr != nil || a.Zone() != "" {
			return p, fmt.Errorf("%s %q: want a prefix, such as 10.0.0.0/24", field, text)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	return p.Masked(), nil
}

// parseAddress reads an address; the zero Addr is for no text.
func parseAddress(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("address %q: want one without a zone, such as 10.0.0.1", text)
	}
	return a.Unmap(), nil
}
