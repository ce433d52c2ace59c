package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"time"

	"github.com/manycast/manycast/internal/lab/report"
)

// counters are what a router counts since its igmpd started.
type counters struct {
	Started  string            `json:"started"`
	Admitted uint64            `json:"admitted"`
	Refused  map[string]uint64 `json:"refused"`
	Joins    []struct {
		Group     string `json:"group"`
		Requester string `json:"requester"`
		KeyID     string `json:"key_id"`
	} `json:"joins"`
}

// ask reads the status socket of a router's igmpd.
func ask(ctx context.Context, dir string) (c counters, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "igmpd", "status.sock"))
	if err != nil {
		return c, fmt.Errorf("ask igmpd: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return c, fmt.Errorf("ask igmpd: %w", err)
	}
	if err := json.NewDecoder(conn).Decode(&c); err != nil {
		return c, fmt.Errorf("ask igmpd: %w", err)
	}
	return c, nil
}

// ledger adds a router's counters up over restarts of its igmpd.
type ledger struct {
	past counters // of those that ended
	now  counters
}

func (l *ledger) enter(c counters) {
	if l.now.Started != "" && c.Started != l.now.Started {
		l.past = sum(l.past, l.now)
	}
	l.now = c
}

func (l *ledger) total() counters { return sum(l.past, l.now) }

func sum(a, b counters) counters {
	total := counters{Admitted: a.Admitted + b.Admitted, Refused: maps.Clone(a.Refused)}
	if total.Refused == nil {
		total.Refused = map[string]uint64{}
	}
	for reason, n := range b.Refused {
		total.Refused[reason] += n
	}
	return total
}

// joins are all routers' counters as the report has them.
func joins(ledgers map[string]*ledger) report.Joins {
	j := report.Joins{Refused: map[string]uint64{}}
	for _, reason := range report.Reasons {
		j.Refused[reason] = 0
	}
	for _, l := range ledgers {
		t := l.total()
		j.Admitted += t.Admitted
		for reason, n := range t.Refused {
			j.Refused[reason] += n
		}
	}
	return j
}
