package group

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
	group      string
	recipients keybus.Recipients
	retire     bool
	wait       time.Duration
}

func newRoll(t *tools) *cobra.Command {
	o := rollOptions{tools: t}
	cmd := &cobra.Command{
		Use:   "roll NAME|ADDRESS",
		Short: "Give a group a new key beside the old one, or retire the old one",
		Long: `Give a group a new key pair, in two steps and without a gap.

First "roll" publishes the second public key beside the first and hands the private key to the members: those who got the last one by the bus, unless
--member or --member-key name others. Members sign with it when --wait is over: every router has read the record anew by then. After that
"roll --retire" takes the old public keys out of the record: whoever has only the old private key is out.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.group = args[0]
			if o.retire {
				return o.runRetire(cmd.Context())
			}
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.retire, "retire", false, "second step: take all keys but the newest out of the record")
	flags.DurationVar(&o.wait, "wait", 0, "members use the new key after that; default: the record's TTL and five seconds")
	o.recipients.Add(flags)
	cmd.MarkFlagsMutuallyExclusive("retire", "member")
	cmd.MarkFlagsMutuallyExclusive("retire", "member-key")
	cmd.MarkFlagsMutuallyExclusive("retire", "key-out")
	return cmd
}

func (o *rollOptions) run(ctx context.Context) error {
	reg, r, err := o.find(ctx, o.group)
	if err != nil {
		return err
	}
	if len(r.Keys) >= record.KeysMax {
		return fmt.Errorf("group %s has %d keys: retire the old ones with --retire", r.Name, len(r.Keys))
	}
	next, err := keybus.Roll(ctx, reg, r, o.recipients, o.open, o.Now(), o.wait)
	if errors.Is(err, keybus.ErrNobody) {
		return fmt.Errorf("%w: name members with --member or --member-key", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Err, "members use the new key from %s; then retire the old one: manycast group roll %s --retire\n",
		next.From.Format(time.RFC3339), r.Name)
	v := newView(next.Record)
	v.Members = next.Members
	return o.Print(v, v.details())
}

func (o *rollOptions) runRetire(ctx context.Context) error {
	reg, r, err := o.find(ctx, o.group)
	if err != nil {
		return err
	}
	if len(r.Keys) < 2 {
		return fmt.Errorf("group %s has one key: there is none to retire", r.Name)
	}
	next := r
	next.Keys = r.Keys[len(r.Keys)-1:]
	if err := reg.Replace(ctx, &r, &next); err != nil {
		return err
	}
	v := newView(next)
	return o.Print(v, v.details())
}
