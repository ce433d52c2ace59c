package lab

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/lab"
)

func newList(f *cmdutil.Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the topologies and whether they are up",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := store(f)
			if err != nil {
				return err
			}
			up, err := s.List()
			if err != nil {
				return err
			}
			type row struct {
				Name  string `json:"name"`
				Up    bool   `json:"up"`
				About string `json:"about"`
			}
			var rows []row
			table := cmdutil.Table{Header: []string{"NAME", "UP", "ABOUT"}}
			for _, name := range lab.Topologies() {
				text, err := lab.BuiltIn(name)
				if err != nil {
					return err
				}
				t, err := lab.ParseTopology(text)
				if err != nil {
					return err
				}
				r := row{t.Name, slices.Contains(up, t.Name), t.About}
				rows = append(rows, r)
				table.Rows = append(table.Rows, []string{r.Name, yesNo(r.Up), r.About})
			}
			return f.Print(rows, table)
		},
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
