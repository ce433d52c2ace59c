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

// mayStall is how many servers may be silent by themselves in a whole run.
const mayStall = 3

// stalledRE is an agent's word that it was silent, or was told so.
var stalledRE = regexp.MustCompile(`^time=(\S+) .*msg="takes nobody until [^"]*: (it was silent for too long|\S+ has taken over)"`)

// readStalls notes which servers were silent though nothing was done to them.
func (f *failures) readStalls() error {
	var stalls []string
	for _, s := range f.servers {
		file, err := os.Open(f.lab.LogPath(s, "agent"))
		if err != nil {
			return fmt.Errorf("what the agent of %s said: %w", s, err)
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			m := stalledRE.FindStringSubmatch(lines.Text())
			if m == nil {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, m[1])
			if err == nil && f.stalled(s, at) {
				stalls = append(stalls, fmt.Sprintf("%s at %.1f s", s, at.Sub(f.began).Seconds()))
			}
		}
		file.Close()
		if err := lines.Err(); err != nil {
			return fmt.Errorf("what the agent of %s said: %w", s, err)
		}
	}
	list := strings.Join(stalls, ", ")
	if list != "" {
		list = ": " + list
	}
	f.check("servers are silent only when they are made to", len(stalls) <= mayStall, "but for %d times, %d may be%s", len(stalls), mayStall, list)
	return nil
}

// stalled notes a server's silence, unless it was made silent then, or everything was stopped.
func (f *failures) stalled(server string, at time.Time) bool {
	if at.Before(f.began) {
		return false
	}
	for _, o := range f.failures {
		made := slices.Contains(o.victims, server) || o.refused || strings.HasPrefix(o.What, "all ")
		if made && at.After(o.start) && at.Before(o.end.Add(report.Settle)) {
			return false
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tally.Deaths = append(f.tally.Deaths, report.Death{
		Server: server, At: at.Add(-time.Second), Gone: at.Add(report.Settle), Found: at.Add(report.Settle), Back: at.Add(20 * time.Second),
	})
	return true
}
