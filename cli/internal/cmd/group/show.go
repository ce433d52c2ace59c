package group

import (
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/internal/record"
)

func newShow(t *tools) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME|ADDRESS",
		Short:   "Show a group's record",
		Example: "  manycast group show web.cast.example\n  manycast group show 239.192.1.2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, r, err := t.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v := newView(r)
			return t.Print(v, v.details())
		},
	}
}

func newExport(t *tools) *cobra.Command {
	return &cobra.Command{
		Use:   "export NAME|ADDRESS...",
		Short: "Write records as a file that igmpd can pin (keys.pinned)",
		Long: `Write records as YAML, for routers that shall not ask the DNS (keys.pinned of igmpd.toml).

A pinned record does not notice that a key was rolled: export it again.`,
		Example: "  manycast group export web.cast.example > /etc/manycast/groups/web.yaml",
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
