package group

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/record"
)

// privateZone has all private groups, whatever zones their names are in.
const privateZone = "239.in-addr.arpa."

func newList(t *tools) *cobra.Command {
	var zones []string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List groups",
		Long:    "List the groups that have a record. By default those with an address in 239/8; --zone asks other zones, by name or by address.",
		Example: "  manycast group list\n  manycast group list --zone cast.example",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reg, err := t.flags.Open(defaultTTL, t.Now)
			if err != nil {
				return err
			}
			var records []record.Record
			for _, zone := range zones {
				more, err := reg.List(cmd.Context(), zone)
				if err != nil {
					return err
				}
				records = append(records, more...)
			}
			return t.printList(records)
		},
	}
	cmd.Flags().StringSliceVar(&zones, "zone", []string{privateZone}, "zones to look into")
	return cmd
}

func (t *tools) printList(records []record.Record) error {
	slices.SortFunc(records, func(a, b record.Record) int { return strings.Compare(a.Name, b.Name) })
	records = slices.CompactFunc(records, func(a, b record.Record) bool { return a.Equal(b) })
	views := []view{}
	table := cmdutil.Table{Header: []string{"NAME", "ADDRESS", "FLAG", "OWNER", "KEYS", "SESSIONS", "UNTIL"}}
	for _, r := range records {
		v := newView(r)
		var ids []string
		for _, k := range v.Keys {
			ids = append(ids, k.ID)
		}
		views = append(views, v)
		table.Rows = append(table.Rows, []string{v.Name, v.Address, v.Flag, v.Owner, strings.Join(ids, ","), v.sessions(), v.until()})
	}
	return t.Print(views, table)
}
