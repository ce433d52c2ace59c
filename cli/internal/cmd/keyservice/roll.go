package keyservice

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/keybus"
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
	next, err := keybus.Roll(ctx, reg, r, o.recipients, o.open, o.Now(), o.wait)
	if errors.Is(err, keybus.ErrNobody) {
		return fmt.Errorf("%w: name servers with --member or --member-key, or keep it with --key-out FILE", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Err, "servers sign with the new key from %s; then take the old one out: manycast key service retire %s\n",
		next.From.Format(time.RFC3339), r.Name)
	v := newView(next.Record, reg.TTL)
	v.Members = next.Members
	return o.print(v)
}
