package portion

import (
	"net/netip"
	"slices"
	"strings"
)

// Union is all addresses of several sets, each less what that set itself denies.
type Union []Set

// Contains reports whether some of the sets contains a.
func (u Union) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(u, func(s Set) bool { return s.Contains(a) })
}

// Empty reports whether no address is in u; see Set.Empty for what is too entangled.
func (u Union) Empty() bool {
	return !slices.ContainsFunc(u, func(s Set) bool { return !s.Empty() })
}

// String lists the sets.
func (u Union) String() string {
	if len(u) == 0 {
		return "nobody"
	}
	parts := make([]string, len(u))
	for i, s := range u {
		parts[i] = s.String()
	}
	return strings.Join(parts, " and ")
}
