package igmp

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

type groupRow struct {
	Router  string   `json:"router"`
	Group   string   `json:"group"`
	Kind    string   `json:"kind"`
	Source  string   `json:"source,omitempty"`
	Members uint32   `json:"members,omitempty"`
	Term    uint64   `json:"term,omitempty"`
	Ports   []string `json:"ports"`
}

func newGroups(o *options) *cobra.Command {
	return o.verb("groups", "Show the groups that routers forward", showGroups)
}

func showGroups(all []*igmpdv1.Status) (any, cmdutil.Table) {
	rows := []groupRow{}
	table := cmdutil.Table{Header: []string{"ROUTER", "GROUP", "KIND", "SOURCE", "MEMBERS", "TERM", "PORTS"}}
	for _, st := range all {
		for _, g := range st.Groups {
			r := groupRow{Router: st.Router, Group: g.Group, Kind: "public", Source: g.Source, Members: g.Members, Term: g.Term, Ports: g.Ports}
			members, term, source := "-", "-", "any"
			if g.Private {
				r.Kind, members, term = "private", fmt.Sprint(g.Members), fmt.Sprint(g.Term)
			}
			if g.Source != "" {
				source = g.Source
			}
			rows = append(rows, r)
			table.Rows = append(table.Rows, []string{r.Router, r.Group, r.Kind, source, members, term, strings.Join(r.Ports, ",")})
		}
	}
	return rows, table
}
