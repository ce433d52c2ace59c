package group

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"
)

func newDelete(t *tools) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME|ADDRESS",
		Short: "Delete a group's record and its sealed keys",
		Long: `Delete a group's record from the DNS, and its sealed keys from the bus.

Routers forget the group when its TTL has run out. Other data under the name stays. Key files that members have already are useless, but not deleted.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			reg, r, err := t.find(ctx, args[0])
			if err != nil {
				return err
			}
			if err := reg.Replace(ctx, &r, nil); err != nil {
				return err
			}
			if err := t.forgetKeys(ctx, r.Address); err != nil {
				fmt.Fprintf(t.Err, "warning: sealed keys of %s may still be on the bus: %v\n", r.Name, err)
			}
			v := newView(r)
			return t.Print(v, v.details())
		},
	}
}

func (t *tools) forgetKeys(ctx context.Context, group netip.Addr) error {
	b, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	return b.Forget(ctx, group)
}
