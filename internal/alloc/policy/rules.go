// Package policy says how much of a service's users each server is to have, and which portions go to whom: one file a policy.
// It is pure and keeps no state: the current allocation's shares and fixed portions are the state, so that the next leader
// goes on where the last one stopped. It moves nothing itself: alloc.Next finds the allocation with the fewest moves.
package policy

import (
	"fmt"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
)

// Policies beside alloc.Equal and alloc.Weighted.
const (
	Load             alloc.Policy = "load"              // toward equal load
	LeastConnections alloc.Policy = "least-connections" // toward equal connections per weight
	Wanted           alloc.Policy = "wanted"            // servers ask for portions (Fig 19), the rest by weight
	Geo              alloc.Policy = "geo"               // prefixes to servers, the rest by weight
)

// Policies are all that there are, as an error or a help text lists them.
const Policies = "equal, weighted, load, least-connections, wanted or geo"

// Rules are what a service says of how its users are shared out.
type Rules struct {
	Policy   alloc.Policy
	Slots    alloc.Slots
	Balance  Balance  // of the feedback policies, load and least-connections; the zero Balance is DefaultBalance
	Prefixes []Prefix // with any policy, which then shares out the rest
}

// Check returns an error for a policy that does not exist, numbers out of their ranges, and prefixes that cannot be given away.
func (r Rules) Check() error {
	switch r.Policy {
	case alloc.Equal, alloc.Weighted, Load, LeastConnections, Wanted:
	case Geo:
		if len(r.Prefixes) == 0 {
			return fmt.Errorf("policy geo without prefixes: say prefixes: [{prefix: 10.0.0.0/8, servers: [s1]}], or take policy weighted")
		}
	default:
		return fmt.Errorf("policy %q: want %s", r.Policy, Policies)
	}
	if err := r.Balance.Check(); err != nil {
		return fmt.Errorf("balance: %w", err)
	}
	pieces, err := Cut(r.Prefixes)
	if err != nil {
		return fmt.Errorf("prefixes: %w", err)
	}
	fixed := make([]portion.Portion, 0, len(pieces))
	for _, p := range pieces {
		fixed = append(fixed, p.Portion)
	}
	if err := alloc.CheckFixed(r.Slots, fixed); err != nil {
		return fmt.Errorf("prefixes, once those inside others are cut out of them: %w", err)
	}
	return nil
}

// FollowsReports reports whether what servers report moves users: then the policy decides each Balance.Interval.
func (r Rules) FollowsReports() bool { return r.IsFeedback() || r.Policy == Wanted }

// IsFeedback reports whether the policy moves shares toward equal loads.
func (r Rules) IsFeedback() bool { return r.Policy == Load || r.Policy == LeastConnections }

// Balance are the knobs of the feedback policies. Fractions are 0 to 1.
type Balance struct {
	Interval   time.Duration // between two decisions, under wanted, too; 1 s to 1 h
	Hysteresis float64       // nothing moves while everybody is that near to the mean; 0.01 to 1
	Step       float64       // largest part of the whole space that one decision moves; 0.001 to 1
	Range      float64       // a server's share stays within 1/Range and Range times what its weight gives it; 1 to 100
	Split      float64       // a portion with more than that part of a mean server's load is split; 0.1 to 100, 0: never
	Shed       float64       // load from which servers refuse new connections when all are above it; 0.1 to 1, 0: never
}

// DefaultBalance is what a service has that says nothing. A share of a quarter of the weight's (Range) makes room for a slot
// of up to three quarters of the mean load: Split is below that.
func DefaultBalance() Balance {
	return Balance{Interval: 10 * time.Second, Hysteresis: 0.1, Step: 0.05, Range: 4, Split: 0.5}
}

// OrDefault returns DefaultBalance for the zero Balance.
func (b Balance) OrDefault() Balance {
	if b == (Balance{}) {
		return DefaultBalance()
	}
	return b
}

// Check returns an error that names the number out of its range. The zero Balance is right.
func (b Balance) Check() error {
	b = b.OrDefault()
	if b.Interval < time.Second || b.Interval > time.Hour {
		return fmt.Errorf("interval %v: want 1s to 1h", b.Interval)
	}
	if !within(b.Range, 1, 100) {
		return fmt.Errorf("range %v: want 1 (weights alone) to 100", b.Range)
	}
	for _, f := range []struct {
		name             string
		value, low, high float64
		mayBeOff         bool
	}{
		{"hysteresis", b.Hysteresis, 0.01, 1, false},
		{"step", b.Step, 0.001, 1, false},
		{"split", b.Split, 0.1, 100, true},
		{"shed", b.Shed, 0.1, 1, true},
	} {
		if within(f.value, f.low, f.high) || f.mayBeOff && f.value == 0 {
			continue
		}
		off := ""
		if f.mayBeOff {
			off = ", or 0: never"
		}
		return fmt.Errorf("%s %g%%: want %g%% to %g%%%s", f.name, 100*f.value, 100*f.low, 100*f.high, off)
	}
	return nil
}

// within is false for what is no number.
func within(f, low, high float64) bool { return f >= low && f <= high }
