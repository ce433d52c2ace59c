package routing

import (
	"context"
	"maps"
	"time"

	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/flowspec"
)

// Status is what can be told of a Loop.
type Status struct {
	Announcing announcing.Progress
	Rules      []bgp.FlowRule // that the speaker has
	Wanted     flowspec.Result
	Moving     bool // Rules are on their way to Wanted
	Skipped    int  // steps of rules that did not wait for all neighbors
	Learned    int  // prefixes
	Counts     bgppolicy.Counts
	Refused    map[string]uint64 // by the speaker's own checks
}

// Status asks the loop.
func (l *Loop) Status(ctx context.Context) (s Status, err error) {
	err = l.Do(ctx, func(now time.Time) {
		s = Status{
			Announcing: l.announcing.Progress(now), Rules: l.rules.Rules(), Wanted: l.result, Moving: !l.rules.Done(), Skipped: l.rules.Skipped(),
			Learned: l.follow.Len(), Counts: l.follow.Counts(), Refused: maps.Clone(l.refused),
		}
	})
	return s, err
}

// Progress says how far coming in, or going, is.
func (l *Loop) Progress(ctx context.Context) (p announcing.Progress, err error) {
	err = l.Do(ctx, func(now time.Time) { p = l.announcing.Progress(now) })
	return p, err
}

// Drain begins to withdraw what is announced, or, with back, to announce it again. Progress says how far it is.
func (l *Loop) Drain(ctx context.Context, back bool) error {
	return l.Do(ctx, func(now time.Time) {
		if back {
			l.announcing.Return(now)
			return
		}
		l.announcing.Drain(now)
	})
}
