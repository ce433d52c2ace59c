// Package keys answers admission what the public keys of groups are, from the memory of records.
package keys

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/igmpd/internal/admission"
	"github.com/manycast/manycast/internal/records"
)

// Cache is a cache of records that knows keys. It belongs to one goroutine.
type Cache struct{ *records.Cache }

// NewCache makes an empty cache that keeps nothing longer than ttlMax.
func NewCache(ttlMax time.Duration) Cache { return Cache{records.NewCache(ttlMax)} }

// Key answers from memory and notes a question where memory does not do.
func (c Cache) Key(now time.Time, group netip.Addr, id uint32) admission.Key {
	r, _, status := c.Record(now, group)
	switch status {
	case records.Unknown:
		return admission.Key{Status: admission.KeyUnknown}
	case records.None:
		return admission.Key{Status: admission.KeyMissing}
	case records.Found:
	}
	if public, ok := r.Key(id); ok {
		return admission.Key{Status: admission.KeyKnown, Public: public, Open: r.Timely(now)}
	}
	if c.Lacks(now, group) {
		return admission.Key{Status: admission.KeyUnknown}
	}
	return admission.Key{Status: admission.KeyMissing}
}
