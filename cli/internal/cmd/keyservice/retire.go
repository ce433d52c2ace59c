package keyservice

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/internal/record"
)

func newRetire(t *tools) *cobra.Command {
	return &cobra.Command{
		Use:   "retire NAME|VIP",
		Short: "Take all keys of a service but the newest out of its record",
		Long: `Take all keys of a service but the newest out of its record: the second step of rolling, when servers sign with the new one. After the TTL whoever has
only an old private key leads no connection anywhere.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.remove(cmd.Context(), args[0], func(r record.Record) (record.Record, error) {
				if len(r.Keys) < 2 {
					return r, fmt.Errorf("service %s has one key: there is none to retire", r.Name)
				}
				r.Keys = r.Keys[len(r.Keys)-1:]
				return r, nil
			})
		},
	}
}

func newRevoke(t *tools) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME|VIP KEYID",
		Short: "Take one key of a service out of its record, at once",
		Long: `Take one key of a service out of its record, at once: it is in wrong hands. No user's host believes it after the record's TTL. The newest key, with
which servers sign or are about to, is not taken out: roll first (--wait 1s), so that they have another one.`,
		Example: "  manycast key service roll shop.cast.example --wait 1s\n  manycast key service revoke shop.cast.example 34750f98",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[1], 16, 32)
			if err != nil {
				return fmt.Errorf("key %.20q: want eight hexadecimal digits, as `manycast key service show` has them", args[1])
			}
			return t.remove(cmd.Context(), args[0], func(r record.Record) (record.Record, error) { return revoked(r, uint32(id)) })
		},
	}
}

// revoked is the record without one of its keys.
func revoked(r record.Record, id uint32) (record.Record, error) {
	i := slices.IndexFunc(r.Keys, func(k record.Key) bool { return k.ID == id })
	switch i {
	case -1:
		return r, fmt.Errorf("service %s has no key %08x", r.Name, id)
	case len(r.Keys) - 1:
		return r, fmt.Errorf("key %08x is the newest of service %s: servers would have none to sign with; first: manycast key service roll %s --wait 1s", id, r.Name, r.Name)
	}
	r.Keys = slices.Delete(slices.Clone(r.Keys), i, i+1)
	return r, nil
}

// remove publishes a record with fewer keys.
func (t *tools) remove(ctx context.Context, service string, change func(record.Record) (record.Record, error)) error {
	reg, r, err := t.find(ctx, service)
	if err != nil {
		return err
	}
	next, err := change(r)
	if err != nil {
		return err
	}
	if err := reg.Replace(ctx, &r, &next); err != nil {
		return err
	}
	fmt.Fprintf(t.Err, "users' hosts that read the record just before believe what was taken out for %s more\n", time.Duration(reg.TTL)*time.Second)
	return t.print(newView(next, reg.TTL))
}
