package scenario

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/lab/report"
)

// phase is one part of the users' work.
type phase struct {
	name   string
	weight int // its part of the time
	act    func(ctx context.Context) error
	static bool // it needs no bus
}

// shareTolerance is how far a server's part of the answers may be from its part of the users.
const shareTolerance = 0.05

// longestWait is how long an answer may take, but for users of a dead server: less than the second after which a SYN is sent
// again, or a network that forwards nothing for a while would pass.
const longestWait = 950 * time.Millisecond

// mayWait is how many answers may take longer: one for ten users. On one link a winner begins when the loser has said that it
// ceased; a SYN in that moment, a millisecond or as many as the machine is late, is sent again after a second. Without
// forwarding for that long every user would wait.
func (s *stage) mayWait() int { return max(2, len(s.users)/10) }

// mayWaitOften is the same where users move again and again: one for each sixty moves of users, as in the other scenarios.
func (s *stage) mayWaitOften() int { return max(s.mayWait(), len(s.users)*len(s.web.all())/60) }

// runPhases runs phases, and also after each action; an action that fails ends them.
func (s *stage) runPhases(ctx context.Context, plan []phase, also func(ctx context.Context, phase string) error) error {
	total := 0
	for _, p := range plan {
		total += p.weight
	}
	began, share := time.Now(), 0
	for _, p := range plan {
		share += p.weight
		start, end := time.Now(), began.Add(s.o.Duration*time.Duration(share)/time.Duration(total))
		s.o.Progress.Phase(p.name)
		err := p.act(ctx)
		if err == nil {
			err = also(ctx, p.name)
		}
		if err != nil {
			s.span(p.name, start)
			return fmt.Errorf("phase %s: %w", p.name, err)
		}
		// Whatever the action took, its outcome is watched for a moment.
		settled := time.Now()
		if least := settled.Add(700*time.Millisecond + report.Settle); end.Before(least) {
			end = least
		}
		if err := s.watchUntil(ctx, end); err != nil {
			s.span(p.name, start)
			return err
		}
		s.checkShares(p.name, settled.Add(report.Settle), end)
		s.span(p.name, start)
	}
	return nil
}

// checkShares compares each server's part of the answers with its part of the users.
func (s *stage) checkShares(phase string, from, to time.Time) {
	s.mu.Lock()
	s.tally.Timeline = s.web.eras()
	shares := s.tally.Shares(s.servers, s.users, from, to)
	s.mu.Unlock()
	ok := true
	var detail []string
	for _, x := range shares {
		ok = ok && x.Requests > 0 && math.Abs(x.Got-x.Want) <= shareTolerance
		detail = append(detail, fmt.Sprintf("%s %.1f %% of answers for %.1f %% of users", x.Server, 100*x.Got, 100*x.Want))
	}
	s.check("shares: "+phase, ok, "%s; %d answers", strings.Join(detail, ", "), shares[0].Requests)
}

// missing are the wanted reasons that no move of a phase has; where none is expected, every move is one too many.
func missing(want []string, moves []Move) (absent []string, ok bool) {
	for _, reason := range want {
		if !slices.ContainsFunc(moves, func(v Move) bool { return strings.Contains(v.Reason, reason) }) {
			absent = append(absent, reason)
		}
	}
	return absent, len(absent) == 0 && (len(want) > 0 || len(moves) == 0)
}

// checkMoves: each phase brought its own moves, and what moved is what had to.
func (s *stage) checkMoves(plan []phase, expected map[string][]string) {
	seen := map[string]bool{}
	for _, x := range s.tally.Spans {
		seen[x.Name] = true
		moves := s.web.between(x.Start, x.End)
		absent, ok := missing(expected[x.Name], moves)
		var reasons []string
		for _, v := range moves {
			reasons = append(reasons, v.Epoch+" "+v.Reason)
		}
		detail := "none"
		if len(reasons) > 0 {
			detail = strings.Join(reasons, "; ")
		}
		if len(absent) > 0 {
			detail += "; missing: " + strings.Join(absent, ", ")
		}
		s.check("moves: "+x.Name, ok, "%s", detail)
	}
	for _, p := range plan {
		if !seen[p.name] {
			s.check("moves: "+p.name, false, "the phase was not reached")
		}
	}
	all := s.web.all()
	var worst float64
	for _, v := range all {
		worst = max(worst, math.Abs(v.FractionMoved-v.FractionNeeded))
	}
	s.check("moved is needed", len(all) > 0 && worst < 1e-9, "%d moves, the largest difference %.6f of the source space", len(all), worst)
}
