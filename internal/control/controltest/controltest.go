// Package controltest makes what tests of the control channel need: an authority, identities, keys, repeatable randomness.
package controltest

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/wire"
	"github.com/manycast/manycast/internal/keyfile"
)

// Group is the control group of tests.
var Group = netip.MustParseAddr("239.80.255.1")

// Authority is the authority of tests.
func Authority() identity.Authority {
	return identity.Authority{Private: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0xa0}, 32))}
}

// GroupKey is the control group's n-th key.
func GroupKey(n byte) keyfile.Group {
	return keyfile.Group{Name: "control.example.", Address: Group, Private: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0xb0, n}, 16))}
}

// Key is what frames are sealed with under GroupKey(n).
func Key(n byte) *wire.Key {
	g := GroupKey(n)
	key, err := wire.NewKey(g.Public().ID, g.Address, g.Private)
	if err != nil {
		panic(err)
	}
	return key
}

// Identity makes a member's identity, good for an hour around now. The same arguments make the same one.
func Identity(name string, role control.Role, leader bool, address netip.Addr, now time.Time) identity.Identity {
	seed := make([]byte, 32)
	copy(seed, fmt.Sprintf("%s of tests", name))
	private := ed25519.NewKeyFromSeed(seed)
	c, err := Authority().Certify(identity.Certificate{
		Name: name, Role: role, Leader: leader, Address: address, Public: private.Public().(ed25519.PublicKey),
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	})
	if err != nil {
		panic(err)
	}
	return identity.Identity{Certificate: c, Private: private}
}

// Random is repeatable.
func Random(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }
