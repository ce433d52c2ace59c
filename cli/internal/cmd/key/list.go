package key

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/keyfile"
)

func newList(f *cmdutil.Factory, open keybus.OpenFunc) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the members on the bus and the groups whose keys were handed over to them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := open(cmd.Context())
			if err != nil {
				return err
			}
			defer b.Close()
			members, err := b.Members.List(cmd.Context())
			if err != nil {
				return err
			}
			keys, err := b.Keys.List(cmd.Context())
			if err != nil {
				return err
			}
			return list(f, members, keys)
		},
	}
}

func list(f *cmdutil.Factory, members, keys []bus.Entry) error {
	type row struct {
		Name   string   `json:"name"`
		Public string   `json:"public"`
		Groups []string `json:"groups"`
	}
	rows := []row{}
	table := cmdutil.Table{Header: []string{"MEMBER", "PUBLIC KEY", "GROUPS"}}
	slices.SortFunc(members, func(a, b bus.Entry) int { return strings.Compare(a.Key, b.Key) })
	for _, e := range members {
		public, err := keyfile.ParseRegistration(e.Key, e.Value)
		if err != nil {
			fmt.Fprintln(f.Err, "warning:", err)
			continue
		}
		r := row{Name: e.Key, Public: public.String(), Groups: []string{}}
		for _, k := range keys {
			if group, ok := strings.CutPrefix(k.Key, keyfile.MemberPrefix(e.Key)); ok {
				r.Groups = append(r.Groups, group)
			}
		}
		slices.Sort(r.Groups)
		rows = append(rows, r)
		table.Rows = append(table.Rows, []string{r.Name, r.Public, strings.Join(r.Groups, ",")})
	}
	return f.Print(rows, table)
}
