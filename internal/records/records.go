// Package records finds the records of groups and VIPs, with their public keys: in pinned files and in a key-bearing DNS, never in the
// packet path. A Cache answers from memory; what it does not know it asks for, once at a time, through a Fetcher.
//
// An answer is believed because of whom it comes from: of a file by its owner, of a server by TSIG or TLS. Another reason, such as
// DNSSEC's signatures by whatever server, is another Source.
package records

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/record"
)

// Source knows the records of groups and VIPs, and has authenticated them.
type Source interface {
	// Fetch returns an address' record and how long it may be used. No such group or VIP is record.ErrNone; other errors say
	// nothing about it.
	Fetch(ctx context.Context, address netip.Addr) (record.Record, time.Duration, error)
}

// Sources asks one after the other; the first that has it wins.
type Sources []Source

// Fetch returns record.ErrNone only when no source has it and none has failed.
func (s Sources) Fetch(ctx context.Context, address netip.Addr) (record.Record, time.Duration, error) {
	var failed error
	for _, source := range s {
		r, ttl, err := source.Fetch(ctx, address)
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
