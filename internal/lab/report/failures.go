package report

import (
	"math"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/lab/traffic"
)

// Kinds are the first words of Failure.What.
var Kinds = []string{"server", "application", "agent", "director", "igmpd", "bus", "link", "all"}

// Failure is one thing that was made to fail, and what users saw of it until the next.
type Failure struct {
	What           string  `json:"what"`             // its kind first
	DetectMS       float64 `json:"detect_ms"`        // until no packet goes to what has failed
	OutageMS       float64 `json:"outage_ms"`        // the longest that a user was not answered
	RequestsFailed int     `json:"requests_failed"`  // as in Requests
	LostWithServer int     `json:"lost_with_server"` // connections to the server that failed
	Reset          int     `json:"reset"`            // connections of users who moved, or whom a standby gave back
	Broken         int     `json:"broken"`           // connections that nothing excuses
}

// Between counts what users saw from one time to another: requests that began and failed, and connections that ended.
func (t *Tally) Between(from, to time.Time) (failed []traffic.Event, c Connections, broken []traffic.Event) {
	for _, e := range t.requests {
		if !e.OK && !e.Start.Before(from) && e.Start.Before(to) {
			failed = append(failed, e)
		}
	}
	var closes []traffic.Event
	for _, e := range t.closes {
		if !e.End.Before(from) && e.End.Before(to) {
			closes = append(closes, e)
		}
	}
	broken = t.judge(closes, &c)
	return failed, c, broken
}

// Detected is how long packets were still sent to a server that failed at some time, from when it was last heard. Until limits what
// is looked at: later it may be back. False: nothing was heard of it before, or nothing sent to it, so that there is no telling.
func Detected(heard, sent []time.Time, at, until time.Time) (time.Duration, bool) {
	h := slices.IndexFunc(heard, at.Before)
	if h < 0 {
		h = len(heard)
	}
	s := slices.IndexFunc(sent, until.Before)
	if s < 0 {
		s = len(sent)
	}
	if h == 0 || s == 0 {
		return 0, false
	}
	return max(0, sent[s-1].Sub(heard[h-1])), true
}

// Milliseconds are rounded to tenths.
func Milliseconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e4) / 10 }
