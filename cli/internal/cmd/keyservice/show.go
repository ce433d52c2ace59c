package keyservice

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/internal/record"
)

func newShow(t *tools) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME|VIP",
		Short:   "Show a service's keys and destinations",
		Example: "  manycast key service show shop.cast.example\n  manycast key service show 192.0.2.80",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			reg, r, err := t.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return t.print(newView(r, reg.TTL))
		},
	}
}

func newExport(t *tools) *cobra.Command {
	return &cobra.Command{
		Use:   "export NAME|VIP...",
		Short: "Write records as a file that users' hosts can pin (keys.pinned)",
		Long: `Write records as YAML, for users' hosts that shall not ask the DNS (keys.pinned of client.toml).

A pinned record does not notice that a key was rolled or revoked: export it again.`,
		Example: "  manycast key service export shop.cast.example > /etc/manycast/services/shop.yaml",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var records []record.Record
			for _, what := range args {
				_, r, err := t.find(cmd.Context(), what)
				if err != nil {
					return err
				}
				records = append(records, r)
			}
			text, err := record.Marshal(records...)
			if err != nil {
				return err
			}
			_, err = t.Out.Write(text)
			return err
		},
	}
}

func newDelete(t *tools) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME|VIP",
		Short: "Delete a service's record and its sealed keys",
		Long: `Delete a service's record from the DNS, and its sealed keys from the bus. Users' hosts forget it when its TTL has run out: connections stay where they
are then.`,
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
			b, err := t.open(ctx)
			if err == nil {
				defer b.Close()
				err = b.Forget(ctx, r.Address)
			}
			if err != nil {
				fmt.Fprintf(t.Err, "warning: sealed keys of %s may still be on the bus: %v\n", r.Name, err)
			}
			return t.print(newView(r, reg.TTL))
		},
	}
}
