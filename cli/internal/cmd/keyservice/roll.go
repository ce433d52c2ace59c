package keyservice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/record"
)

type rollOptions struct {
	*tools
	service    string
	wait       time.Duration
	recipients keybus.Recipients
}

func newRoll(t *tools) *cobra.Command {
	o := rollOptions{tools: t}
	cmd := &cobra.Command{
		Use:   "roll NAME|VIP",
		Short: "Give a service a new key beside the old one",
		Long: `Give a service a new key pair beside the old one, without a gap: the second public key is published, the private key handed to those who got the last
one by the bus, unless --member or --member-key name others. Servers sign with it when --wait is over: every user's host has read the record anew by
then. After that "retire" takes the old one out.

Where the old key is in wrong hands do not wait: "roll --wait 1s", then "revoke". Users' hosts that do not know the new key yet ask for it when they see it.`,
		Example: "  manycast key service roll shop.cast.example",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.service = args[0]
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().DurationVar(&o.wait, "wait", 0, "servers use the new key after that; default: the record's TTL and five seconds")
	o.recipients.Add(cmd.Flags())
	return cmd
}

func (o *rollOptions) run(ctx context.Context) error {
	reg, r, err := o.find(ctx, o.service)
	if err != nil {
		return err
	}
	if len(r.Keys) >= record.KeysMax {
		return fmt.Errorf("service %s has %d keys: take old ones out with retire or revoke", r.Name, len(r.Keys))
	}
	if err := o.defaultRecipients(ctx, r); err != nil {
		return err
	}
	to, err := o.recipients.Resolve(ctx, o.open)
	if err != nil {
		return err
	}
	defer to.Close()
	g, err := keyfile.NewGroup(r.Name, r.Address)
	if err != nil {
		return err
	}
	if o.wait == 0 {
		o.wait = time.Duration(reg.TTL)*time.Second + ttlMargin
	}
	g.NotBefore = o.Now().Add(o.wait).UTC().Truncate(time.Second)
	next := r
	next.Keys = append(slices.Clone(r.Keys), g.Public())
	if err := reg.Replace(ctx, &r, &next); err != nil {
		return err
	}
	if err := to.Hand(ctx, g); err != nil {
		return fmt.Errorf("%w; the new public key is published already, roll again", err)
	}
	fmt.Fprintf(o.Err, "servers sign with the new key from %s; then take the old one out: manycast key service retire %s\n",
		g.NotBefore.Format(time.RFC3339), r.Name)
	v := newView(next, reg.TTL)
	v.Members = to.Names()
	return o.print(v)
}

// defaultRecipients are those who have the key now.
func (o *rollOptions) defaultRecipients(ctx context.Context, r record.Record) error {
	if !o.recipients.None() {
		return nil
	}
	b, err := o.open(ctx)
	if err != nil {
		return fmt.Errorf("keys are handed over by the bus: %w", err)
	}
	defer b.Close()
	if o.recipients.Members, err = b.Holders(ctx, r.Address); err != nil {
		return err
	}
	if o.recipients.None() {
		return errors.New("nobody got this service's key by the bus: name servers with --member or --member-key, or keep it with --key-out FILE")
	}
	return nil
}
