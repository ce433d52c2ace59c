package igmp

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

type refusalRow struct {
	Router   string            `json:"router"`
	Admitted uint64            `json:"admitted"`
	Refused  map[string]uint64 `json:"refused"`
	Last     []lastRefusal     `json:"last"`
}

type lastRefusal struct {
	Time      string `json:"time"`
	Reason    string `json:"reason"`
	Port      string `json:"port"`
	Source    string `json:"source"`
	Requester string `json:"requester,omitempty"`
	Group     string `json:"group,omitempty"`
	Detail    string `json:"detail,omitempty"`
}

func newRefusals(o *options) *cobra.Command {
	return o.verb("refusals", "Show how many joins were refused, why, and the last ones", showRefusals)
}

// showRefusals has one line a reason with its count and its last case; other forms have all of the last refusals.
func showRefusals(all []*igmpdv1.Status) (any, cmdutil.Table) {
	rows := []refusalRow{}
	table := cmdutil.Table{Header: []string{"ROUTER", "REASON", "COUNT", "LAST", "PORT", "SOURCE", "REQUESTER", "GROUP"}}
	for _, st := range all {
		row := refusalRow{Router: st.Router, Admitted: st.Admitted, Refused: st.Refused, Last: []lastRefusal{}}
		newest := make(map[string]*igmpdv1.Refusal)
		for _, r := range st.LastRefusals {
			row.Last = append(row.Last, lastRefusal{r.Time, r.Reason, r.Port, r.Source, r.Requester, r.Group, r.Detail})
			if newest[r.Reason] == nil {
				newest[r.Reason] = r
			}
		}
		rows = append(rows, row)
		for _, reason := range slices.Sorted(maps.Keys(st.Refused)) {
			cells := []string{st.Router, reason, fmt.Sprint(st.Refused[reason]), "-", "", "", "", ""}
			if r := newest[reason]; r != nil {
				cells = append(cells[:3], r.Time, r.Port, r.Source, r.Requester, r.Group)
			}
			table.Rows = append(table.Rows, cells)
		}
	}
	return rows, table
}
