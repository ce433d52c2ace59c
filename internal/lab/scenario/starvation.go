package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// starvation knows when the machine kept daemons of the lab from running, by the kernel's own account of how long each thread waited
// for a CPU (/proc/PID/task/TID/schedstat), and by how late it is itself.
type starvation struct {
	lab     *lab.Lab
	waited  map[string]time.Duration // by thread, so far
	stop    chan struct{}
	ended   sync.Once
	done    sync.WaitGroup
	mu      sync.Mutex
	starved []starved
}

// starved is a thread that could run and was not let.
type starved struct {
	node, process string // empty: everybody
	at            time.Time
	waited        time.Duration // in the last lookEvery, or in one go before at
}

const (
	lookEvery = 200 * time.Millisecond
	// notable is how long a thread waits for a CPU in lookEvery, or the look itself is late, for it to be noted.
	notable = 40 * time.Millisecond
)

// watched are the daemons whose silence costs users something.
var watched = []string{"agent", "igmpd", "director"}

// watchStarvation looks at those daemons until it is ended.
func watchStarvation(l *lab.Lab) *starvation {
	s := &starvation{lab: l, waited: map[string]time.Duration{}, stop: make(chan struct{})}
	s.done.Go(s.run)
	return s
}

// end may be said more than once.
func (s *starvation) end() {
	s.ended.Do(func() { close(s.stop) })
	s.done.Wait()
}

func (s *starvation) run() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		now := time.Now()
		s.add(starved{at: now, waited: now.Sub(last) - lookEvery})
		last = now
		for _, p := range s.lab.Status().Processes {
			if p.Running && slices.Contains(watched, p.Process) {
				s.add(starved{node: p.Node, process: p.Process, at: now, waited: s.look(p.PID)})
			}
		}
	}
}

func (s *starvation) add(x starved) {
	if x.waited < notable {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starved = append(s.starved, x)
}

// look is the longest that a thread of a process has waited since the last look.
func (s *starvation) look(pid int) (longest time.Duration) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		waited, ok := parseSchedstat(string(text))
		if !ok {
			continue
		}
		if before, known := s.waited[path]; known {
			longest = max(longest, waited-before)
		}
		s.waited[path] = waited
	}
	return longest
}

// parseSchedstat reads how long a thread could have run and was not let: the second of three figures, in nanoseconds.
func parseSchedstat(text string) (time.Duration, bool) {
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return 0, false
	}
	ns, err := strconv.ParseInt(fields[1], 10, 64)
	return time.Duration(ns), err == nil
}

// between is how long a process was kept from running from one time to another, all in all.
func (s *starvation) between(node, process string, from, to time.Time) (total time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.starved {
		mine := x.node == "" || x.node == node && x.process == process
		if mine && x.at.After(from) && x.at.Before(to) {
			total += x.waited
		}
	}
	return total
}

// longest is the longest wait in a time, of anybody but one node's.
func (s *starvation) longest(from, to time.Time, but string) (longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.starved {
		if x.at.After(from) && x.at.Before(to) && (x.node == "" || x.node != but) {
			longest = max(longest, x.waited)
		}
	}
	return longest
}

// worst names the daemons that were kept longest from running in a time, to be shown.
func (s *starvation) worst(from, to time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest := map[string]time.Duration{}
	for _, x := range s.starved {
		if x.at.After(from) && x.at.Before(to) {
			name := "all"
			if x.node != "" {
				name = x.node + "/" + x.process
			}
			longest[name] = max(longest[name], x.waited)
		}
	}
	var parts []string
	for name, waited := range longest {
		if waited >= 2*notable {
			parts = append(parts, fmt.Sprintf("%s %d ms", name, waited.Milliseconds()))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// disturbed: while the user waited, or just before, the machine kept a daemon from running for so long that it was as good as dead. Of a connection
// that lasted its end counts.
func (s *stage) disturbed(e traffic.Event) bool {
	from := e.Start.Add(-wordWithin)
	if end := e.End.Add(-2 * wordWithin); end.After(from) {
		from = end
	}
	return s.starvation != nil && s.starvation.longest(from, e.End.Add(lookEvery), "") >= silentFor
}

// undisturbed are those of events that are not the machine's doing, by anybody or by standbys alone, and how many are.
func (s *stage) undisturbed(events []traffic.Event, byStandbys bool) (rest []traffic.Event, left int) {
	for _, e := range events {
		if s.disturbed(e) && (!byStandbys || s.tally.StoodBy(e)) {
			left++
		} else {
			rest = append(rest, e)
		}
	}
	return rest, left
}
