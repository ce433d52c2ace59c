package steer

import "net/netip"

// Plan answers who owns a user. It is immutable.
type Plan struct{ claims []Claim }

// Compile makes a plan of claims: the owner of an address is the claim of the highest epoch whose set contains it, and
// of several at one epoch the one with the smallest owner number.
func Compile(claims []Claim) (*Plan, error) { return &Plan{claims}, nil }

// Lookup returns the owner of a user, 0 if nobody owns it.
func (p *Plan) Lookup(user netip.Addr) Owner {
	var best *Claim
	for i, c := range p.claims {
		if c.Set.Contains(user) && (best == nil || best.Epoch.Less(c.Epoch) || best.Epoch == c.Epoch && c.Owner < best.Owner) {
			best = &p.claims[i]
		}
	}
	if best == nil {
		return 0
	}
	return best.Owner
}

// Equal reports whether both plans are the same.
func (p *Plan) Equal(o *Plan) bool { return p == o }
