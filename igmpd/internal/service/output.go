package service

import (
	"maps"
	"slices"
	"time"

	"github.com/manycast/manycast/igmpd/internal/membership"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
)

// ipHeaderBytes is an IPv4 header with the router alert option.
const ipHeaderBytes = 24

// act carries out membership's actions.
func (s *Service) act(actions []membership.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case membership.Changed:
			s.changed = true
		case membership.Refused:
			s.refuse(s.last, Packet{Port: a.Port, Source: a.Requester}, reasonOf(a.Err), join.Join{Group: a.Group, Requester: a.Requester}, a.Err.Error())
		case membership.SendQuery:
			s.sendQuery(a)
		case membership.Relay:
			s.relay(a)
		case membership.SendReport:
			s.sendReport(a.Records)
		}
	}
}

func (s *Service) sendQuery(a membership.SendQuery) {
	to := allSystems
	if !a.Query.General() {
		to = a.Query.Group
	}
	payload, err := igmp.Marshal(a.Query)
	if err == nil {
		err = s.Network.Send(a.Port, to, payload)
	}
	if err != nil {
		s.stats.warn(s.last, "query not sent", "port", a.Port, "err", err)
	}
}

// relay notes a set for the next router toward each root.
func (s *Service) relay(a membership.Relay) {
	for name := range s.upstream {
		if name != a.From {
			s.relayBy(time.Now(), name, a)
		}
	}
}

// sendRelays packs what has come together into as few reports as fit the link.
func (s *Service) sendRelays() {
	for name, joins := range s.relays {
		p := s.ports[name]
		if !p.Up {
			continue
		}
		reports, err := join.Batch(joins, p.MTU)
		if err != nil {
			s.stats.warn(s.last, "joins not relayed", "port", name, "err", err)
		}
		for _, r := range reports {
			if err := s.Network.Send(name, allRouters, r); err != nil {
				s.stats.warn(s.last, "joins not relayed", "port", name, "err", err)
			}
		}
		s.stats.relayed += uint64(len(joins))
	}
	s.dropRelays()
}

// dropRelays empties the queues and keeps their room for the next joins.
func (s *Service) dropRelays() {
	for name, joins := range s.relays {
		clear(joins)
		s.relays[name] = joins[:0]
	}
	s.pending = 0
}

// sendReport tells the routers toward the roots about public groups, in as few reports as fit.
func (s *Service) sendReport(records []igmp.Record) {
	for _, name := range slices.Sorted(maps.Keys(s.upstream)) {
		p := s.ports[name]
		if !p.Up {
			continue
		}
		for _, r := range packRecords(records, p.MTU) {
			payload, err := igmp.Marshal(r)
			if err == nil {
				err = s.Network.Send(name, allRouters, payload)
			}
			if err != nil {
				s.stats.warn(s.last, "report not sent", "port", name, "err", err)
			}
		}
	}
}

// packRecords splits records over reports of at most mtu bytes. A source list that does not fit is cut into several records
// of INCLUDE kinds; one of an EXCLUDE kind keeps what fits (RFC 3376 section 4.2.16).
func packRecords(records []igmp.Record, mtu int) []igmp.Report {
	room := max(mtu-ipHeaderBytes-igmp.ReportBytes, igmp.RecordBytes+4)
	perRecord := (room - igmp.RecordBytes) / 4
	var reports []igmp.Report
	used := room
	add := func(r igmp.Record) {
		size := igmp.RecordBytes + 4*len(r.Sources)
		if used+size > room {
			reports = append(reports, igmp.Report{})
			used = 0
		}
		last := &reports[len(reports)-1]
		last.Records = append(last.Records, r)
		used += size
	}
	for _, r := range records {
		exclude := r.Type == igmp.ModeIsExclude || r.Type == igmp.ChangeToExclude
		for len(r.Sources) > perRecord && !exclude {
			add(igmp.Record{Type: r.Type, Group: r.Group, Sources: r.Sources[:perRecord]})
			r.Sources = r.Sources[perRecord:]
		}
		if exclude {
			r.Sources = r.Sources[:min(len(r.Sources), perRecord)]
		}
		add(r)
	}
	return reports
}

// inPorts are the ports that packets for groups are accepted from: where users are, and toward the roots.
func (s *Service) inPorts() []string {
	var in []string
	for name, p := range s.ports {
		if p.Users || s.upstream[name] {
			in = append(in, name)
		}
	}
	slices.Sort(in)
	return in
}
