// Package report turns what users, allocations and routers did during a scenario into its report. It is pure: everything that
// happened comes in as data.
package report

import (
	"encoding/json"
	"fmt"
	"io"
)

// Report is what a scenario found.
type Report struct {
	Scenario    string              `json:"scenario"`
	DurationS   float64             `json:"duration_s"`
	Requests    Requests            `json:"requests"`
	Connections Connections         `json:"connections"`
	PerServer   map[string]int      `json:"per_server"` // requests answered
	Moves       []Move              `json:"moves"`
	Joins       Joins               `json:"joins"`
	Phases      []Phase             `json:"phases"`
	Failures    []Failure           `json:"failures,omitempty"`
	Tagged      *Tagged             `json:"tagged,omitempty"`
	Handover    map[string]Handover `json:"handover,omitempty"` // by strategy
	BGP         *BGP                `json:"bgp,omitempty"`
	DynTCP      *DynTCP             `json:"dyntcp,omitempty"`
	DetectMS    float64             `json:"detect_ms,omitempty"`  // scenario tags: from a killed server's last heartbeat to the last packet toward it
	StarvedMS   float64             `json:"starved_ms,omitempty"` // the longest that the machine kept a daemon from running
	Checks      []Check             `json:"checks"`
}

// Requests counts requests. One has failed when a second attempt, on a fresh connection and within 1 s, failed too.
type Requests struct {
	Total             int `json:"total"`
	Failed            int `json:"failed"`
	FailedInDetection int `json:"failed_in_detection"` // of a killed server's users, or on a killed director's way, until its death was found
}

// Connections counts connections and how they ended against the user's will.
type Connections struct {
	Opened           int `json:"opened"`
	Reset            int `json:"reset"`                        // the user had moved: the strategy allows it
	LostWithServer   int `json:"lost_with_server"`             // the server was killed
	LostWithDirector int `json:"lost_with_director,omitempty"` // scenario bgp: a director was killed, and its neighbors had not found out
	Broken           int `json:"broken"`                       // all others
}

// Move is one reallocation.
type Move struct {
	Epoch               string  `json:"epoch"` // term.number
	FractionMoved       float64 `json:"fraction_moved"`
	FractionNeeded      float64 `json:"fraction_needed"`
	ConnectionsAffected int     `json:"connections_affected"`
	MS                  float64 `json:"ms"`
}

// Joins counts extended joins at all routers.
type Joins struct {
	Admitted uint64            `json:"admitted"`
	Refused  map[string]uint64 `json:"refused"` // every reason is there
}

// Reasons are the reasons for which a router refuses a join.
var Reasons = [...]string{
	"unsigned", "duplicate", "not_timely", "wrong_link", "no_key", "bad_signature", "overlap", "stale_epoch", "rate_limited", "malformed",
}

// Tagged is who put users' packets onto their servers' trees.
type Tagged struct {
	FirstPacketsViaDirector uint64 `json:"first_packets_via_director"` // until upstream routers had been told
	PacketsViaDirector      uint64 `json:"packets_via_director"`       // since then
	PacketsTagged           uint64 `json:"packets_tagged"`             // by upstream routers
}

// Phase is one part of the scenario.
type Phase struct {
	Name           string `json:"name"`
	RequestsFailed int    `json:"requests_failed"` // failures in detection are not in it
	BlackoutMS     int64  `json:"blackout_ms"`     // the longest that a user waited for an answer, over failures
}

// Check is one thing that has to hold.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// OK says whether all checks hold; a report without checks proves nothing.
func (r *Report) OK() bool {
	for _, c := range r.Checks {
		if !c.OK {
			return false
		}
	}
	return len(r.Checks) > 0
}

// Write writes the report as JSON.
func (r *Report) Write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}
