// Package portion is about parts of the source-address space: what a server takes and what it leaves (the masks of Fig 7C).
package portion

import "net/netip"

// Portion is the set of addresses a with a & Mask == Addr. The mask need not be a prefix. Addr and Mask are of one family
// (4 or 16 bytes), Addr has no bit outside Mask. The zero Portion is invalid.
type Portion struct {
	Addr netip.Addr
	Mask netip.Addr
}

// Set is the permitted senders less the denied ones (Fig 7B and 7C). No Permit at all permits nobody.
type Set struct {
	Permit []Portion
	Deny   []Portion
}
