package steer

import (
	"fmt"
	"net/netip"
)

// MaxSplit bounds a Split.
const MaxSplit = 256

// Split are prefixes of NATs, each with many users behind it: what these send is told apart by its source port, too.
type Split []netip.Prefix

// Check returns an error for what is no Split: prefixes of either family, sorted and distinct.
func (s Split) Check() error {
	if len(s) > MaxSplit {
		return fmt.Errorf("%d prefixes, at most %d", len(s), MaxSplit)
	}
	for i, p := range s {
		switch {
		case !p.IsValid() || p.Addr().Is4In6():
			return fmt.Errorf("%v is no prefix of addresses", p)
		case p != p.Masked():
			return fmt.Errorf("%v has bits behind the prefix: did you mean %v", p, p.Masked())
		case i > 0 && p == s[i-1]:
			return fmt.Errorf("%v is there twice", p)
		case i > 0 && p.Compare(s[i-1]) < 0:
			return fmt.Errorf("prefixes are not sorted at %v", p)
		}
	}
	return nil
}

// Of returns the prefix that an address is split by.
func (s Split) Of(a netip.Addr) (netip.Prefix, bool) {
	a = a.Unmap()
	for _, p := range s {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// User is by whom routers and servers go for what is sent from there by TCP or UDP: the address, or what stands in for it, which portions
// and single users do not suit. Without a port (0) all of an address' packets are one user's.
func (s Split) User(from netip.AddrPort) (user netip.Addr, standin bool) {
	a := from.Addr().Unmap()
	if _, split := s.Of(a); split && from.Port() != 0 {
		return Flow(from), true
	}
	if a.Is6() {
		return Standin(a), true
	}
	return a, false
}
