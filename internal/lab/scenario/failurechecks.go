package scenario

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

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
	left := 0
	for i, o := range f.failures {
		until := o.end
		if i+1 < len(f.failures) {
			until = f.failures[i+1].start
		}
		lost, c, gone := f.tally.Between(o.start, until)
		wrong := f.unexcused(gone)
		machines := len(gone) - len(wrong)
		left += machines
		o.RequestsFailed, o.LostWithServer, o.Reset, o.Broken = len(lost), c.LostWithServer, c.Reset+machines, len(wrong)
		f.failures[i].Failure = o.Failure
		for _, e := range lost {
			if !f.refused(e) && !f.tally.InDetection(e) {
				failed = append(failed, e)
			}
		}
		broken = append(broken, wrong...)
		r.Failures = append(r.Failures, o.Failure)
		r.DurationS = math.Round(until.Sub(f.began).Seconds()*1000) / 1000
	}
	r.Connections.Reset, r.Connections.Broken = r.Connections.Reset+left, r.Connections.Broken-left
	f.check("no connection was broken", r.Connections.Opened > 0 && len(broken) == 0, "%d of %d; left out, by standbys while the machine kept daemons from running: %d%s",
		len(broken), r.Connections.Opened, left, f.examples(broken, f.tally.Timeline))
	f.check("no request failed", r.Requests.Total > 0 && len(failed) == 0, "%d of %d; not counted: before a dead server could be found, and without any server%s",
		len(failed), r.Requests.Total, f.examples(failed, f.tally.Timeline))
	f.checkDetection()
	f.checkOutage()
	f.checkLost()
	f.checkAnswers(r.Requests.Total)
	r.Checks = f.checks
	return r
}

// unexcused are those of broken connections that are not the machine's doing: those to a standby, who gave the user back to an owner that it
// took for dead, are.
func (f *failures) unexcused(broken []traffic.Event) []traffic.Event {
	return slices.DeleteFunc(broken, func(e traffic.Event) bool { return e.How != traffic.Timeout && f.tally.StoodBy(e) && f.disturbed(e) })
}

// refused says that a request came to its end while there was no server, or was refused while servers shed.
func (f *failures) refused(e traffic.Event) bool {
	for _, o := range f.failures {
		if (o.refused || o.sheds && wasRefused(e)) && e.End.After(o.start) && e.Start.Before(o.end) {
			return true
		}
	}
	return false
}

// checkDetection: what is not there any more gets no packets, soon after its last heartbeat.
func (f *failures) checkDetection() {
	f.checkBound("what has failed is found out", func(o *outcome) (float64, time.Duration) { return o.DetectMS, o.detect })
}

// checkOutage: no user is without answers for longer than each failure may cost.
func (f *failures) checkOutage() {
	f.checkBound("users are answered soon again", func(o *outcome) (float64, time.Duration) { return o.OutageMS, o.outage })
}

// checkBound holds a figure of each failure against what is allowed for it, and for how long the machine kept a daemon from running
// meanwhile. Where that was so long that servers fell silent, nothing is asked of it.
func (f *failures) checkBound(name string, figure func(*outcome) (ms float64, allowed time.Duration)) {
	var wrong, worst []string
	slowest := map[time.Duration]float64{}
	bounded, left := 0, 0
	for i := range f.failures {
		o := &f.failures[i]
		ms, allowed := figure(o)
		switch {
		case allowed == 0:
			continue
		case len(o.stalled) > 0:
			left++
			continue
		case ms > report.Milliseconds(allowed+o.late):
			wrong = append(wrong, fmt.Sprintf("%s: %.1f ms for %v and %v late", o.What, ms, allowed, o.late.Round(time.Millisecond)))
		}
		bounded++
		slowest[allowed] = max(slowest[allowed], ms)
	}
	for _, allowed := range slices.Sorted(maps.Keys(slowest)) {
		worst = append(worst, fmt.Sprintf("%.1f ms of %v", slowest[allowed], allowed))
	}
	if bounded+left > 0 {
		f.check(name, len(wrong) == 0, "%d failures, at most %s; left out, as the machine kept servers from running: %d%s",
			bounded, strings.Join(worst, ", "), left, some(wrong))
	}
}

// checkLost: where no server fails no connection is lost with one.
func (f *failures) checkLost() {
	var wrong []string
	for i := range f.failures {
		if o := &f.failures[i]; !o.lost && o.LostWithServer > 0 && len(o.stalled) == 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %d", o.What, o.LostWithServer))
		}
	}
	f.check("connections are lost with servers that fail alone", len(wrong) == 0, "%d failures of others lost some%s", len(wrong), some(wrong))
}

// checkAnswers: a user is answered by its owner or by the standby of a dead one, by nobody twice, and soon where its server is there.
func (f *failures) checkAnswers(requests int) {
	var strangers, waited []traffic.Event
	left := 0
	for _, e := range f.tally.Strangers() {
		if f.tally.StoodBy(e) && f.disturbed(e) {
			left++
			continue
		}
		strangers = append(strangers, e)
	}
	f.check("only owners answer, and standbys of dead ones", requests > 0 && len(strangers) == 0,
		"%d answers by others; left out, by standbys while the machine kept daemons from running: %d%s", len(strangers), left, f.examples(strangers, f.tally.Timeline))
	left = 0
	for _, e := range f.tally.Waited(longestWait) {
		switch {
		case f.refused(e), f.interrupted(e):
		case f.disturbed(e):
			left++
		default:
			waited = append(waited, e)
		}
	}
	f.check("hardly anybody waits long", requests > 0 && len(waited) <= f.mayWait(),
		"%d answers took longer than %v, %d may; left out, while the machine kept daemons from running: %d%s",
		len(waited), longestWait, f.mayWait(), left, f.examples(waited, f.tally.Timeline))
	var twice []string
	asked := 0
	for _, a := range f.askers {
		asked += a.Gap(f.began, time.Now()).Asked
		for _, x := range a.Twice() {
			twice = append(twice, fmt.Sprintf("at %.3f s by %s and %s", x.Asked.Sub(f.began).Seconds(), x.First, x.Second))
		}
	}
	f.check("nobody is served twice", asked > 0 && len(twice) == 0, "%d of %d questions were answered twice%s", len(twice), asked, some(twice))
}

// synAgain is after how long TCP sends a SYN again.
const synAgain = time.Second

// interrupted: the user waited for what was lost while a link between routers was cut, or healed.
func (f *failures) interrupted(e traffic.Event) bool {
	for i := range f.failures {
		o := &f.failures[i]
		if o.outage == rerouted && e.End.After(o.start) && e.Start.Before(o.end) && e.End.Sub(e.Start) <= synAgain+rerouted+o.late {
			return true
		}
	}
	return false
}
