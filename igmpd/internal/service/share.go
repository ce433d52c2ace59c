package service

import "time"

const (
	shareOf    = 10                    // one part in so many of the loop's time
	shareMost  = 20 * time.Millisecond // that one piece of work counts: beyond that it has waited for a processor
	shareBurst = 50 * time.Millisecond // of a port's public groups: all hosts of a link answer a query within seconds
)

// share keeps one kind of work to its part of the loop's time, whatever hosts send: the rest is for all others. What the work
// costs depends on how many groups and sources they have made up, so it is measured.
type share struct {
	burst time.Duration // that may be spent beforehand
	debt  time.Duration
	at    time.Time // of the debt
}

// next is when the work may be done again.
func (s *share) next() time.Time {
	if s.debt <= s.burst {
		return s.at
	}
	return s.at.Add((s.debt - s.burst) * shareOf)
}

func (s *share) ready(now time.Time) bool { return !now.Before(s.next()) }

// spend notes that the work took from began to now.
func (s *share) spend(began, now time.Time) {
	s.debt = max(0, s.debt-now.Sub(s.at)/shareOf) + min(now.Sub(began), shareMost)
	s.at = now
}
