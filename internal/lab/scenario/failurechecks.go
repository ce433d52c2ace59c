package scenario

import (
	"fmt"
	"math"
	"strings"

	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// report judges everything, once it is over.
func (f *failures) report() *report.Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tally.Timeline = f.web.eras()
	r := &report.Report{
		Scenario: "failures", PerServer: f.tally.PerServer(f.servers), Moves: []report.Move{}, Joins: joins(nil),
		Phases: []report.Phase{}, Failures: []report.Failure{},
	}
	for _, v := range f.web.all() {
		r.Moves = append(r.Moves, v.Move)
	}
	r.Requests, _ = f.tally.Requests()
	r.Connections, _ = f.tally.Connections()
	var failed, broken []traffic.Event
	for i, o := range f.failures {
		until := o.end
		if i+1 < len(f.failures) {
			until = f.failures[i+1].start
		}
		lost, c, gone := f.tally.Between(o.start, until)
		o.RequestsFailed, o.LostWithServer, o.Reset, o.Broken = len(lost), c.LostWithServer, c.Reset, c.Broken
		for _, e := range lost {
			if !f.refused(e) && !f.tally.InDetection(e) {
				failed = append(failed, e)
			}
		}
		broken = append(broken, gone...)
		r.Failures = append(r.Failures, o.Failure)
		r.DurationS = math.Round(until.Sub(f.began).Seconds()*1000) / 1000
	}
	f.check("no connection was broken", r.Connections.Opened > 0 && len(broken) == 0, "%d of %d%s", len(broken), r.Connections.Opened, f.examples(broken))
	f.check("no request failed", r.Requests.Total > 0 && len(failed) == 0, "%d of %d; not counted: before a dead server could be found, and without any server%s",
		len(failed), r.Requests.Total, f.examples(failed))
	f.checkDetection(r.Failures)
	r.Checks = f.checks
	return r
}

// refused says that a request came to its end while there was no server.
func (f *failures) refused(e traffic.Event) bool {
	for _, o := range f.failures {
		if o.refused && e.End.After(o.start) && e.Start.Before(o.end) {
			return true
		}
	}
	return false
}

// checkDetection: a server that is not there any more gets no packets, soon after its last heartbeat; of one that fails in part it is
// the report's to tell.
func (f *failures) checkDetection(all []report.Failure) {
	var worst float64
	var late []string
	servers := 0
	for _, x := range all {
		if !strings.HasPrefix(x.What, "server ") {
			continue
		}
		servers++
		worst = max(worst, x.DetectMS)
		if x.DetectMS > report.Milliseconds(detectWithin) {
			late = append(late, fmt.Sprintf("%s: %.1f ms", x.What, x.DetectMS))
		}
	}
	if servers > 0 {
		f.check("a dead server is found out", len(late) == 0, "%d times, the slowest %.1f ms after its last heartbeat, %v are allowed%s", servers, worst, detectWithin, some(late))
	}
}
