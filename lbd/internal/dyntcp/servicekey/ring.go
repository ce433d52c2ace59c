// Package servicekey is the keys of services with dynamic TCP (Fig 21), at both ends: Ring has the private ones with which a server
// signs moves, Book the public ones by which a user's host believes them.
//
// A service's key is the key of its VIP: private in a file (internal/keyfile) that came by hand or by the bus (internal/groupkeys), public
// in the VIP's record (internal/record), which internal/records fetches from who is believed. That is the seam for other reasons to believe
// an answer, DNSSEC's signatures for one: another records.Source.
package servicekey

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// ErrNoKey says that a server has no key of a service. What it wraps has a way out.
var ErrNoKey = errors.New("no private key of the service")

// Ring has the private keys of this server. It may be used by several goroutines.
type Ring struct {
	mu   sync.Mutex
	keys []keyfile.Group
}

// Set takes all keys there are, in place of those before; groupkeys.Keys calls it.
func (r *Ring) Set(keys []keyfile.Group) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = slices.Clone(keys)
}

// Sign is a movement.Signer: c is signed with the key of its VIP that is in force at its time, of several the one that became so last.
// Errors wrap ErrNoKey, or are those of wire.Sign.
func (r *Ring) Sign(c wire.Change) (wire.Signed, error) {
	r.mu.Lock()
	g, ok := keyfile.Pick(r.keys, c.VIP.Addr(), c.Time)
	r.mu.Unlock()
	if !ok {
		return wire.Signed{}, fmt.Errorf("%w of %v at %v: manycast key service create, or roll, and name this server with --member",
			ErrNoKey, c.VIP.Addr(), c.Time)
	}
	c.KeyID = g.Public().ID
	return wire.Sign(c, g.Private)
}

// Has says whether there is any key of a VIP.
func (r *Ring) Has(vip netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.keys, func(g keyfile.Group) bool { return g.Address == vip })
}
