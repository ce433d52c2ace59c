package keybus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/keyfile"
)

// Handover is who gets a private key.
type Handover struct {
	buckets Buckets
	to      map[string]keyfile.MemberPublic
	file    string
}

// Names are the members, in order.
func (h *Handover) Names() []string { return slices.Sorted(maps.Keys(h.to)) }

// Close gives the bus back.
func (h *Handover) Close() {
	if h.buckets.Close != nil {
		h.buckets.Close()
	}
}

// Hand gives the key to all, or to nobody.
func (h *Handover) Hand(ctx context.Context, g keyfile.Group) (err error) {
	if h.file != "" {
		if err := keyfile.WriteGroup(h.file, g, false); err != nil {
			return err
		}
	}
	done := 0
	defer func() {
		if err != nil {
			err = errors.Join(err, h.takeBack(ctx, g, done))
		}
	}()
	for _, name := range h.Names() {
		value, err := keyfile.Envelope(name, h.to[name], g)
		if err == nil {
			_, err = h.buckets.Keys.Put(ctx, keyfile.BusKey(name, g.Address), value)
		}
		if err != nil {
			return fmt.Errorf("hand the key of %s to %s: %w", g.Name, name, err)
		}
		done++
	}
	return nil
}

// takeBack removes the file and what the first members got.
func (h *Handover) takeBack(ctx context.Context, g keyfile.Group, done int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var failed []error
	for _, name := range h.Names()[:done] {
		failed = append(failed, h.buckets.Keys.Delete(ctx, keyfile.BusKey(name, g.Address)))
	}
	if h.file != "" {
		failed = append(failed, os.Remove(h.file))
	}
	return errors.Join(failed...)
}
