package report

import (
	"time"

	"github.com/manycast/manycast/internal/lab/traffic"
)

// BGP is what users, and the routers that were there before, saw of directors and speakers that came and went.
type BGP struct {
	DrainFailedRequests             int        `json:"drain_failed_requests"`               // while a director or a server was drained, and came back
	DirectorDeathFailedRequests     int        `json:"director_death_failed_requests"`      // begun before its neighbors had found out
	HoldMS                          float64    `json:"hold_ms"`                             // that directors' sessions have
	BFDMS                           float64    `json:"bfd_ms"`                              // detection time of BFD with directors; 0: there is none
	FailoverMS                      float64    `json:"failover_ms"`                         // from the power cut to the last question that was not answered
	RoutesWithdrawnOnSpeakerRestart int        `json:"routes_withdrawn_on_speaker_restart"` // ways to the VIP that neighbors' kernels lost
	FlowSpecSeenAtPeer              int        `json:"flowspec_seen_at_peer"`               // rules, at one neighbor
	LabelledRoutesSeenAtPeer        int        `json:"labelled_routes_seen_at_peer"`        // likewise, of all directors
	ServerRoute                     []string   `json:"server_route"`                        // what a server's rack was told of its host route, in order: RouteSoft, ...
	Phases                          []BGPPhase `json:"phases"`
}

// How a route is told.
const (
	RoutePlain     = "plain"     // as it is to be
	RouteSoft      = "soft"      // preferred by nobody: prepended, and marked for GRACEFUL_SHUTDOWN
	RouteWithdrawn = "withdrawn" // no more
)

// BGPPhase is one phase of scenario bgp.
type BGPPhase struct {
	Name            string  `json:"name"`
	RequestsFailed  int     `json:"requests_failed"` // all that began in it, those in detection, too
	OutageMS        float64 `json:"outage_ms"`       // the longest that a user who asks by UDP was not answered
	RoutesWithdrawn int     `json:"routes_withdrawn"`
}

// Outage is a time in which a way was dead and others still sent users along it: what failed of anybody's is excused.
type Outage struct {
	At   time.Time
	Over time.Time // others had found out
}

// inOutage: the user could not be answered, not even at the second attempt, if its packets went along the dead way.
func (t *Tally) inOutage(e traffic.Event) bool {
	for _, o := range t.Outages {
		if e.End.After(o.At) && !e.Retry.After(o.Over) {
			return true
		}
	}
	return false
}

// cutOff: the connection ended as nothing came through on it for a while, or its user gave up then.
func (t *Tally) cutOff(e traffic.Event) bool {
	for _, o := range t.Outages {
		if e.How == traffic.Timeout && e.Start.Before(o.Over) && e.End.After(o.At) && e.End.Before(o.Over.Add(waits+Settle)) {
			return true
		}
	}
	return false
}

// waitedOut: from start to end there was such a time.
func (t *Tally) waitedOut(start, end time.Time) bool {
	for _, o := range t.Outages {
		if start.Before(o.Over) && end.After(o.At) {
			return true
		}
	}
	return false
}
