package group

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

// ttlMargin is for routers that ask a little late.
const ttlMargin = 5 * time.Second

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
	fmt.Fprintf(o.Err, "members use the new key from %s; then retire the old one: manycast group roll %s --retire\n",
		g.NotBefore.Format(time.RFC3339), r.Name)
	v := newView(next)
	v.Members = to.Names()
	return o.Print(v, v.details())
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
		return errors.New("nobody got this group's key by the bus: name members with --member or --member-key")
	}
	return nil
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
