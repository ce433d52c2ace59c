package scenario

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/lab/report"
)

// An agent that the machine does not let run for a fifth of a second is as silent as a dead one, and its users go to the standbys: that is
// as it has to be, but nothing that the scenario did. What it costs is the server's, and too much of it makes the scenario worthless.
// It has to be shown by others than the agent: its link without its frames, and the kernel's account of who had to wait for a CPU. An
// agent that was heard all the time and lost its users all the same is one that others wrongly took over from; one that was silent and
// could have run is one that hung.

const (
	// stallEvery is how much of a run there has to be for each time that servers may be silent by the machine's doing.
	stallEvery = 30 * time.Second
	// silentFor is how long a server's link is without its frames when that counts as silence: three heartbeats. Its own clock, and that
	// of who hears it, say when it is too much.
	silentFor = 150 * time.Millisecond
	// deadFor is after how long it must be too much for somebody: what an agent's packet program allows it.
	deadFor = 200 * time.Millisecond
	// keptFor is how long the machine must have kept an agent from running for its silence to be the machine's doing.
	keptFor = 100 * time.Millisecond
	// wordWithin is how long after it was silent an agent says so.
	wordWithin = 2 * time.Second
)

// stalledRE is an agent's word that it was silent, or was told so.
var stalledRE = regexp.MustCompile(`^time=(\S+) .*msg="takes nobody until [^"]*: (it was silent for too long|\S+ has taken over)"`)

// stalls are servers that lost their users though nothing was done to them.
type stalls struct {
	kept  []string // the machine kept them from running
	hung  []string // it did not
	heard []string // they were not even silent

	keptAt []time.Time
}

// times is how often the machine kept some from running; within wordWithin that is one time, whoever they are.
func (s *stalls) times() (n int) {
	var last time.Time
	for _, at := range slices.SortedFunc(slices.Values(s.keptAt), time.Time.Compare) {
		if n == 0 || at.Sub(last) > wordWithin {
			n++
		}
		last = at
	}
	return n
}

// readStalls judges which servers lost their users though nothing was done to them: those that say so, and those whose links were silent.
func (f *failures) readStalls() error {
	var found stalls
	for _, s := range f.servers {
		said, err := f.said(s)
		if err != nil {
			return err
		}
		for _, at := range said {
			heard, _ := f.taps[s].Between(at.Add(-wordWithin), at.Add(wordWithin))
			f.stalled(&found, s, at, longestSilence(heard, at), f.starvation.between(s, "agent", at.Add(-wordWithin), at.Add(lookEvery)))
		}
		heard, _ := f.taps[s].Between(f.began, time.Now())
		for i := 1; i < len(heard); i++ {
			from, to := heard[i-1], heard[i]
			isSaid := slices.ContainsFunc(said, func(at time.Time) bool { return at.After(from) && at.Before(to.Add(wordWithin)) })
			if to.Sub(from) >= deadFor && !isSaid && f.bySelf(s, from, to) {
				f.stalled(&found, s, to, to.Sub(from), f.starvation.between(s, "agent", from.Add(-wordWithin), to.Add(lookEvery)))
			}
		}
	}
	f.check("nobody takes over from a server that is heard, and no agent hangs", len(found.heard)+len(found.hung) == 0,
		"%d times heard, %d times hung%s", len(found.heard), len(found.hung), some(slices.Concat(found.heard, found.hung)))
	times, may := found.times(), 1+int(time.Since(f.began)/stallEvery)
	f.check("the machine lets servers run", times <= may, "but for %d times, %d may be%s", times, may, some(found.kept))
	return nil
}

// said is when a server's agent said that it was silent, or was told so, though the scenario did not make it.
func (f *failures) said(server string) (times []time.Time, err error) {
	file, err := os.Open(f.lab.LogPath(server, "agent"))
	if err != nil {
		return nil, fmt.Errorf("what the agent of %s said: %w", server, err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		m := stalledRE.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		if at, err := time.Parse(time.RFC3339Nano, m[1]); err == nil && f.bySelf(server, at, at) {
			times = append(times, at)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("what the agent of %s said: %w", server, err)
	}
	return times, nil
}

// longestSilence is the longest time between two frames of a server that had begun by then.
func longestSilence(heard []time.Time, by time.Time) (longest time.Duration) {
	for i := 1; i < len(heard) && heard[i-1].Before(by); i++ {
		longest = max(longest, heard[i].Sub(heard[i-1]))
	}
	return longest
}

// bySelf: the scenario did not make the server silent in that time.
func (f *failures) bySelf(server string, from, to time.Time) bool {
	if from.Before(f.began) || f.planned.overlaps(from, to) {
		return false
	}
	for i := range f.failures {
		o := &f.failures[i]
		made := slices.Contains(o.victims, server) || o.refused || strings.HasPrefix(o.What, "all ")
		if made && (span{o.start, o.end.Add(report.Settle)}).overlaps(from, to) {
			return false
		}
	}
	return true
}

// stalled notes a server's loss of its users, with how long its link was silent, and how long it was kept from running. Only where
// the machine kept it is that excused.
func (f *failures) stalled(found *stalls, server string, at time.Time, silent, kept time.Duration) {
	text := fmt.Sprintf("%s at %.1f s: silent for %v, kept from running for %v", server, at.Sub(f.began).Seconds(),
		silent.Round(time.Millisecond), kept.Round(time.Millisecond))
	switch {
	case silent < silentFor:
		found.heard = append(found.heard, text)
		return
	case kept < keptFor:
		found.hung = append(found.hung, text)
		return
	}
	found.kept, found.keptAt = append(found.kept, text), append(found.keptAt, at)
	for i := range f.failures {
		if o := &f.failures[i]; at.After(o.start) && at.Add(-wordWithin).Before(o.end) {
			o.stalled = append(o.stalled, server)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tally.Deaths = append(f.tally.Deaths, report.Death{
		Server: server, At: at.Add(-time.Second), Gone: at.Add(report.Settle), Found: at.Add(report.Settle), Back: at.Add(20 * time.Second),
	})
}
