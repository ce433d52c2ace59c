package portion

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// OverlapError says that two owners have the same address.
type OverlapError struct {
	First, Second string
	Addr          netip.Addr
}

func (e *OverlapError) Error() string {
	return fmt.Sprintf("%s belongs to %s and to %s; take it from one of them", e.Addr, e.First, e.Second)
}

// GapError says that nobody has an address.
type GapError struct{ Addr netip.Addr }

func (e *GapError) Error() string {
	return fmt.Sprintf("%s belongs to nobody; give it to an owner", e.Addr)
}

// ErrTooHard says that the sets are too entangled to be checked with bounded work.
var ErrTooHard = errors.New("too many portions that overlap denied ones; use fewer denied portions or fewer distinct masks")

// CheckPartition checks that the owners' sets are exclusive and complete: every address belongs to exactly one. It checks
// the families that occur, IPv4 when none does. The error is an *OverlapError, a *GapError or ErrTooHard.
func CheckPartition(owners map[string]Set) error {
	names := slices.Sorted(maps.Keys(owners))
	for _, is4 := range families {
		regions := make([]region, len(names))
		occurs := is4 && !hasIPv6(owners)
		for i, n := range names {
			regions[i] = regionOf(owners[n], is4)
			occurs = occurs || len(regions[i].permit) > 0
		}
		if !occurs {
			continue
		}
		addr, v := search(is4, regions, func(st []status) verdict {
			all, none := count(st)
			return verdictOf(all > 1 || none == len(st), all == 1 && none == len(st)-1)
		})
		switch v {
		case found:
			return partitionError(owners, names, addr)
		case tooHard:
			return fmt.Errorf("partition of %d owners: %w", len(names), ErrTooHard)
		}
	}
	return nil
}

func partitionError(owners map[string]Set, names []string, addr netip.Addr) error {
	var have []string
	for _, n := range names {
		if owners[n].Contains(addr) {
			have = append(have, n)
		}
	}
	if len(have) < 2 {
		return &GapError{addr}
	}
	return &OverlapError{have[0], have[1], addr}
}

func hasIPv6(owners map[string]Set) bool {
	for _, s := range owners {
		if slices.ContainsFunc(s.Permit, func(p Portion) bool { return p.IsValid() && !p.Is4() }) {
			return true
		}
	}
	return false
}

func count(st []status) (all, none int) {
	for _, s := range st {
		switch s {
		case yes:
			all++
		case no:
			none++
		}
	}
	return all, none
}
