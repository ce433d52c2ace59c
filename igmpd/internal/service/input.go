package service

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/igmpd/internal/admission"
	"github.com/manycast/manycast/igmpd/internal/membership"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
)

var (
	allSystems = netip.AddrFrom4([4]byte{224, 0, 0, 1})
	allRouters = netip.AddrFrom4([4]byte{224, 0, 0, 22}) // that speak IGMPv3
)

// packet takes one IGMP packet in. Packets of other subnets are ignored (RFC 3376 section 9), but for those of neighbours;
// extended joins among them are on the wrong link and counted.
func (s *Service) packet(now time.Time, p Packet) {
	port := s.ports[p.Port]
	if port == nil || port.admission == nil || p.Source == port.Address {
		return
	}
	if extended := looksExtended(p.Payload); extended && !s.checker.Allow(now, p.Port) {
		s.refuse(now, p, admission.RateLimited, join.Join{}, "")
		return
	}
	msg, err := igmp.Parse(p.Payload)
	if err != nil {
		if !errors.Is(err, igmp.ErrUnknown) {
			s.refuse(now, p, admission.Malformed, join.Join{}, err.Error())
		}
		return
	}
	if !s.onLink(port, p.Source, msg) {
		if looksExtended(p.Payload) {
			s.refuse(now, p, admission.WrongLink, join.Join{}, "sent from none of the port's subnets")
		}
		return
	}
	switch m := msg.(type) {
	case igmp.Query:
		s.public(now, p, func() []membership.Action { return s.table.Query(now, p.Port, p.Source, m) })
	case igmp.V1Report:
		if s.plain(now, p, m.Group) {
			s.public(now, p, func() []membership.Action { return s.table.V1Report(now, p.Port, m.Group) })
		}
	case igmp.V2Report:
		if s.plain(now, p, m.Group) {
			s.public(now, p, func() []membership.Action { return s.table.V2Report(now, p.Port, m.Group) })
		}
	case igmp.Leave:
		if s.plain(now, p, m.Group) {
			s.public(now, p, func() []membership.Action { return s.table.Leave(now, p.Port, m.Group) })
		}
	case igmp.Report:
		s.report(now, port, p, m)
	}
}

// looksExtended tells whether a packet is a report with extensions (RFC 9279), before anything else of it is read.
func looksExtended(payload []byte) bool {
	return len(payload) > 4 && payload[0] == igmp.TypeV3Report && payload[4]&0x80 != 0
}

// onLink is RFC 3376 section 9: reports and queries come from the port's subnets. Reports may have no source yet.
func (s *Service) onLink(port *port, source netip.Addr, msg igmp.Message) bool {
	if slices.Contains(port.Neighbors, source) || slices.ContainsFunc(port.Prefixes, func(p netip.Prefix) bool { return p.Contains(source) }) {
		return true
	}
	_, query := msg.(igmp.Query)
	return !query && source.IsUnspecified()
}

// plain tells whether a report without signature counts: it does for public groups only.
func (s *Service) plain(now time.Time, p Packet, group netip.Addr) bool {
	if admission.IsPrivate(group) {
		s.refuse(now, p, admission.Unsigned, join.Join{Group: group, Requester: p.Source}, "plain report of a private group")
		return false
	}
	return true
}

// public lets a report of public groups, or a query, take effect while the port's share of the time lasts. Nobody has to show a
// key for them, so a host may send as many as it likes; and each query toward a root is answered for all groups.
func (s *Service) public(now time.Time, p Packet, do func() []membership.Action) {
	share := &s.ports[p.Port].public
	if !share.ready(now) {
		s.refuse(now, p, admission.RateLimited, join.Join{Requester: p.Source}, "reports of public groups and queries take too much time")
		return
	}
	began := time.Now()
	s.act(do())
	share.spend(began, time.Now())
}

// report takes the plain records and the extended joins of a report.
func (s *Service) report(now time.Time, port *port, p Packet, m igmp.Report) {
	joins, err := join.FromReport(m)
	if err != nil {
		s.refuse(now, p, admission.Malformed, join.Join{}, err.Error())
	}
	extended := make(map[netip.Addr]bool, len(joins))
	for _, j := range joins {
		extended[j.Group] = true
	}
	var public []igmp.Record
	for _, r := range m.Records {
		switch {
		case !admission.IsPrivate(r.Group):
			public = append(public, r)
		case !extended[r.Group] && err == nil:
			s.plain(now, p, r.Group)
		}
	}
	if len(public) > 0 {
		s.public(now, p, func() []membership.Action { return s.table.Report(now, p.Port, public) })
	}
	for i, j := range joins {
		switch {
		case i > 0 && !s.checker.Allow(now, p.Port):
			s.refuse(now, p, admission.RateLimited, j.Join, "")
		case p.TTL != 1 || !p.RouterAlert || p.Destination != allRouters:
			s.refuse(now, p, admission.Malformed, j.Join, "an extended join goes to 224.0.0.22 with TTL 1 and router alert")
		default:
			a := admission.Arrival{Join: j, Port: port.admission, Source: p.Source, At: p.At}
			s.verdict(now, a, s.checker.Check(now, a))
		}
	}
}

// verdict carries out what admission said of one extended join.
func (s *Service) verdict(now time.Time, a admission.Arrival, v admission.Verdict) {
	p := Packet{Port: a.Port.Name, Source: a.Source}
	switch v.Outcome {
	case admission.Public, admission.Waiting:
	case admission.Refused:
		s.refuse(now, p, v.Reason, a.Join.Join, "")
	case admission.Redundant:
		s.stats.redundant++
	case admission.Admitted:
		s.saveSoon(now, snapshotLater)       // its stamp is to be remembered
		if a.Join.Group == s.control.group { // for snooping switches: the control group is static here
			s.stats.admitted++
			return
		}
		actions, err := s.table.Join(now, a.Port.Name, a.Join)
		if err != nil {
			s.refuse(now, p, reasonOf(err), a.Join.Join, err.Error())
		} else {
			s.stats.admitted++
		}
		s.act(actions)
	}
}

// reasonOf names the reason behind what membership refused.
func reasonOf(err error) admission.Reason {
	switch {
	case errors.Is(err, membership.ErrOverlap):
		return admission.Overlap
	case errors.Is(err, membership.ErrStale), errors.Is(err, join.ErrSuperseded):
		return admission.StaleEpoch
	case errors.Is(err, membership.ErrFull), errors.Is(err, join.ErrFull):
		return admission.RateLimited
	}
	return admission.Malformed
}

func (s *Service) refuse(now time.Time, p Packet, reason admission.Reason, j join.Join, detail string) {
	s.stats.refuse(refusal{at: now, reason: reason, port: p.Port, source: p.Source, requester: j.Requester, group: j.Group, detail: detail})
}
