package lab

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/lab"
)

func newList(t *tools) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the topologies, and the labs of each that are up",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := t.store()
			if err != nil {
				return err
			}
			up, err := labsUp(s)
			if err != nil {
				return err
			}
			type row struct {
				Name  string   `json:"name"`
				Up    []string `json:"up"`
				About string   `json:"about"`
			}
			var rows []row
			table := cmdutil.Table{Header: []string{"NAME", "UP", "ABOUT"}}
			for _, name := range lab.Topologies() {
				source, err := lab.BuiltIn(name)
				if err != nil {
					return err
				}
				topology, err := lab.ParseTopology(source.Text)
				if err != nil {
					return err
				}
				r := row{topology.Name, up[topology.Name], topology.About}
				rows = append(rows, r)
				table.Rows = append(table.Rows, []string{r.Name, strings.Join(r.Up, ", "), r.About})
			}
			return t.Print(rows, table)
		},
	}
}

// labsUp are the labs that are up, by topology; none is an empty list. A damaged one is of none.
func labsUp(s *lab.Store) (map[string][]string, error) {
	names, err := s.List()
	if err != nil {
		return nil, err
	}
	up := map[string][]string{}
	for _, topology := range lab.Topologies() {
		up[topology] = []string{}
	}
	for _, name := range names {
		if l, err := s.Open(name); err == nil {
			up[l.Topology().Name] = append(up[l.Topology().Name], name)
			l.Close()
		}
	}
	return up, nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
