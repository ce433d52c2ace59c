package service

import (
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"github.com/manycast/manycast/igmpd/internal/admission"
)

const (
	refusalsKept = 64
	logsASecond  = 5
	logsBurst    = 20
)

// refusal is one join that was not taken.
type refusal struct {
	at        time.Time
	reason    admission.Reason
	port      string
	source    netip.Addr
	requester netip.Addr
	group     netip.Addr
	detail    string
}

// stats counts, and logs what could be many at a bounded rate.
type stats struct {
	log        *slog.Logger
	limit      *rate.Limiter
	suppressed uint64
	admitted   uint64
	relayed    uint64
	redundant  uint64 // copies of joins that neighbours relayed by other ways
	refused    map[admission.Reason]uint64
	last       []refusal // the newest last
}

func newStats(log *slog.Logger) *stats {
	s := &stats{log: log, limit: rate.NewLimiter(logsASecond, logsBurst), refused: make(map[admission.Reason]uint64)}
	for _, r := range admission.Reasons() {
		s.refused[r] = 0
	}
	return s
}

func (s *stats) refuse(r refusal) {
	s.refused[r.reason]++
	if len(s.last) >= refusalsKept {
		s.last = append(s.last[:0], s.last[1:]...)
	}
	s.last = append(s.last, r)
	s.warn(r.at, "join refused", "reason", r.reason, "port", r.port, "source", r.source, "requester", r.requester, "group", r.group, "detail", r.detail)
}

// warn logs unless there was too much to log lately; the next line tells how many are missing.
func (s *stats) warn(now time.Time, msg string, args ...any) {
	if !s.limit.AllowN(now, 1) {
		s.suppressed++
		return
	}
	if s.suppressed > 0 {
		args = append(args, "suppressed", s.suppressed)
		s.suppressed = 0
	}
	s.log.Warn(msg, args...)
}
