package joiner

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/keyfile"
)

// Key is a private key of a group.
type Key struct {
	Group   netip.Addr
	ID      uint32
	Private ed25519.PrivateKey
}

// Keyring is a Signer over keys that may be replaced at any time. Of several keys of a group the first is in force.
type Keyring struct {
	mu   sync.Mutex
	keys []Key
}

// Set replaces all keys.
func (k *Keyring) Set(keys []Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = slices.Clone(keys)
}

// SetGroups is Set with keys as they are in files.
func (k *Keyring) SetGroups(groups []keyfile.Group) {
	keys := make([]Key, len(groups))
	for i, g := range groups {
		keys[i] = Key{Group: g.Address, ID: g.Public().ID, Private: g.Private}
	}
	k.Set(keys)
}

// Has reports whether there is a key of the group.
func (k *Keyring) Has(group netip.Addr) bool {
	_, ok := k.find(group, 0)
	return ok
}

// Sign implements Signer.
func (k *Keyring) Sign(_ time.Time, j join.Join) (join.Signed, error) {
	key, ok := k.find(j.Group, j.KeyID)
	if !ok {
		return join.Signed{}, fmt.Errorf("%w: %v, key %08x", ErrNoKey, j.Group, j.KeyID)
	}
	j.KeyID = key.ID
	return join.Sign(j, key.Private)
}

func (k *Keyring) find(group netip.Addr, id uint32) (Key, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.keys {
		if key.Group == group && (id == 0 || key.ID == id) {
			return key, true
		}
	}
	return Key{}, false
}
