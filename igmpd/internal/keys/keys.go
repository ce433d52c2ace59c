// Package keys finds the public keys of groups: in pinned files and in a key-bearing DNS, never in the packet path. A Cache
// answers admission from memory; what it does not know it asks for, once at a time, through a Fetcher.
package keys

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/record"
)

// Source knows the records of groups.
type Source interface {
	// Fetch returns a group's record and how long it may be used. No such group is record.ErrNone; other errors say nothing
	// about the group.
	Fetch(ctx context.Context, group netip.Addr) (record.Record, time.Duration, error)
}

// Sources asks one after the other; the first that has the group wins.
type Sources []Source

// Fetch returns record.ErrNone only when no source has the group and none has failed.
func (s Sources) Fetch(ctx context.Context, group netip.Addr) (record.Record, time.Duration, error) {
	var failed error
	for _, source := range s {
		r, ttl, err := source.Fetch(ctx, group)
		if err == nil {
			return r, ttl, nil
		}
		if !errors.Is(err, record.ErrNone) {
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return record.Record{}, 0, failed
	}
	return record.Record{}, 0, record.ErrNone
}
