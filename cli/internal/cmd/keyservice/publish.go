package keyservice

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

type publishOptions struct {
	*tools
	service      string
	destinations []string
	ttl          time.Duration
}

func newPublish(t *tools) *cobra.Command {
	o := publishOptions{tools: t}
	cmd := &cobra.Command{
		Use:   "publish NAME|VIP --destination PREFIX",
		Short: "Publish where a service's servers are, in place of what was published before",
		Long: `Publish where a service's servers are, in place of what was published before. Users' hosts lead no connection elsewhere, whoever signs it.

Publish a new server's address, and wait for the TTL, before it takes connections over; take one's out after it has given its connections away. Those that are
there already stay.`,
		Example: "  manycast key service publish shop.cast.example --destination 10.2.0.0/24,10.4.0.0/24",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.service = args[0]
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().StringSliceVar(&o.destinations, "destination", nil, "prefixes or addresses, all of them")
	cmd.Flags().DurationVar(&o.ttl, "ttl", 0, "how long users' hosts may keep the record; default: as before")
	_ = cmd.MarkFlagRequired("destination") // the flag is there
	return cmd
}

func (o *publishOptions) run(ctx context.Context) error {
	reg, r, err := o.find(ctx, o.service)
	if err != nil {
		return err
	}
	next := r
	if next.Destinations, err = prefixes(o.destinations); err != nil {
		return err
	}
	if err := next.Validate(); err != nil {
		return err
	}
	if o.ttl != 0 {
		if reg.TTL, err = seconds(o.ttl); err != nil {
			return err
		}
	}
	if err := reg.Replace(ctx, &r, &next); err != nil {
		return err
	}
	return o.print(newView(next, reg.TTL))
}
