package keybus

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/cli/internal/registry"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/record"
)

// ttlMargin is for those who ask a little late.
const ttlMargin = 5 * time.Second

// ErrNobody is that no recipient is named, and nobody got the key that there is by the bus.
var ErrNobody = errors.New("nobody got this key by the bus")

// Rolled is a record with one more key, and who got that.
type Rolled struct {
	record.Record
	From    time.Time // then it is used
	Members []string
}

// Roll publishes one more key in a record and hands it to the recipients, or else to those who have the one before. It is used after wait; zero: when
// all have read the record anew.
func Roll(ctx context.Context, reg *registry.Registry, r record.Record, recipients Recipients, open OpenFunc, now time.Time, wait time.Duration) (Rolled, error) {
	if recipients.None() {
		var err error
		if recipients.Members, err = holders(ctx, open, r.Address); err != nil {
			return Rolled{}, err
		}
	}
	to, err := recipients.Resolve(ctx, open)
	if err != nil {
		return Rolled{}, err
	}
	defer to.Close()
	g, err := keyfile.NewGroup(r.Name, r.Address)
	if err != nil {
		return Rolled{}, err
	}
	if wait == 0 {
		wait = time.Duration(reg.TTL)*time.Second + ttlMargin
	}
	g.NotBefore = now.Add(wait).UTC().Truncate(time.Second)
	next := r
	next.Keys = append(slices.Clone(r.Keys), g.Public())
	if err := reg.Replace(ctx, &r, &next); err != nil {
		return Rolled{}, err
	}
	if err := to.Hand(ctx, g); err != nil {
		return Rolled{}, fmt.Errorf("%w; the new public key is published already, roll again", err)
	}
	return Rolled{next, g.NotBefore, to.Names()}, nil
}

// holders are those who have the key now.
func holders(ctx context.Context, open OpenFunc, address netip.Addr) ([]string, error) {
	b, err := open(ctx)
	if err != nil {
		return nil, fmt.Errorf("keys are handed over by the bus: %w", err)
	}
	defer b.Close()
	members, err := b.Holders(ctx, address)
	if err == nil && len(members) == 0 {
		err = ErrNobody
	}
	return members, err
}
