package service

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/igmpd/internal/kernel"
	"github.com/manycast/manycast/internal/portion"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

// Status is what the router tells about itself. It may be called from any goroutine while Run runs.
func (s *Service) Status(ctx context.Context) (*igmpdv1.Status, error) {
	counters, countersErr := s.Forwarder.Counters()
	var st *igmpdv1.Status
	if err := s.do(ctx, func() { st = s.status(time.Now(), counters) }); err != nil {
		return nil, err
	}
	st.Forwarding = forwardingStatus(counters)
	st.Forwarding.Error = s.forwardOK.text()
	if countersErr != nil && st.Forwarding.Error == "" {
		st.Forwarding.Error = countersErr.Error()
	}
	return st, nil
}

func (s *Service) status(now time.Time, counters kernel.Counters) *igmpdv1.Status {
	st := &igmpdv1.Status{
		Router: s.Config.Name, Started: s.started.UTC().Format(time.RFC3339Nano),
		Admitted: s.stats.admitted, Relayed: s.stats.relayed, Redundant: s.stats.redundant, Refused: make(map[string]uint64),
		Control: s.controlStatus(now),
	}
	for reason, n := range s.stats.refused {
		st.Refused[reason.String()] = n
	}
	for _, r := range slices.Backward(s.stats.last) {
		st.LastRefusals = append(st.LastRefusals, r.proto())
	}
	for _, name := range slices.Sorted(maps.Keys(s.ports)) {
		p := s.ports[name]
		st.Ports = append(st.Ports, &igmpdv1.Port{
			Name: name, Up: p.Up, Address: text(p.Address), Querier: text(s.table.Querier(now, name)), Upstream: s.upstream[name],
		})
	}
	s.groupStatus(now, st)
	for _, m := range s.table.Members() {
		st.Joins = append(st.Joins, &igmpdv1.Join{
			Group: text(m.Group), Requester: text(m.Requester), Port: m.Port, Owner: uint32(m.Owner), Epoch: m.Epoch.String(),
			KeyId: fmt.Sprintf("%08x", m.KeyID), Permit: portions(m.Own.Permit), Deny: portions(m.Own.Deny), Standby: portions(m.Standby.Permit),
			AgeMs: now.Sub(m.Since).Milliseconds(), ExpiresMs: m.Expires.Sub(now).Milliseconds(), Packets: counters.Owners[m.Owner].Packets, Health: healthText(s.table.Health(m.Requester)),
		})
	}
	return st
}

func (s *Service) groupStatus(now time.Time, st *igmpdv1.Status) {
	private := s.table.Private()
	for _, g := range s.table.PrivateGroups() {
		ports := make(map[string]bool)
		for _, p := range private[g].Owners {
			ports[p] = true
		}
		st.Groups = append(st.Groups, &igmpdv1.Group{
			Group: text(g), Private: true, Term: s.table.Term(g), Members: uint32(len(private[g].Owners)), Ports: slices.Sorted(maps.Keys(ports)),
		})
	}
	for _, r := range s.table.Public(now) {
		st.Groups = append(st.Groups, &igmpdv1.Group{Group: text(r.Group), Source: text(r.Source), Ports: r.Out})
	}
}

func forwardingStatus(c kernel.Counters) *igmpdv1.Forwarding {
	return &igmpdv1.Forwarding{NoOwner: c.NoOwner, Accelerated: c.Accelerated, Tables: c.Tables, Sources: uint64(c.Sources)}
}

func (r refusal) proto() *igmpdv1.Refusal {
	return &igmpdv1.Refusal{
		Time: r.at.UTC().Format(time.RFC3339Nano), Reason: r.reason.String(), Port: r.port, Source: text(r.source),
		Requester: text(r.requester), Group: text(r.group), Detail: r.detail,
	}
}

// text is an address as text; empty for none.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func portions(list []portion.Portion) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return out
}
