package tag

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// entryRow is an entry of the ILM (with a label) or of the FTN.
type entryRow struct {
	Router string   `json:"router"`
	Label  *uint32  `json:"label,omitempty"`
	FEC    string   `json:"fec"`
	Kind   string   `json:"kind,omitempty"`
	Hops   []hopRow `json:"hops"` // none: dropped
}

func newTable(o *options) *cobra.Command {
	cmd := o.verb("table", "Show what is done to packets: by label (ILM), and by prefix where they have none (FTN)", showTable)
	cmd.Long = `Show what is done to packets, in the terms of RFC 3031: of those that come in with a label (ILM: swap or pop), and of those that come in
without one to a prefix (FTN: push, or keep where the next hop wants none). The kernel has the same: ip -f mpls route; ip route show proto redirect.`
	return cmd
}

func showTable(ctx context.Context, w way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
	rows := []entryRow{}
	for _, answer := range all {
		router := answer.GetRouter()
		for _, ftn := range []bool{false, true} {
			err := eachEntry(ctx, w, router, ftn, func(e *tdpdv1.Entry) {
				rows = append(rows, entryRow{router, e.Label, e.GetFec(), e.GetKind(), hopsOf(e.GetHops())})
			})
			if err != nil {
				return nil, cmdutil.Table{}, err
			}
		}
	}
	table := cmdutil.Table{Header: []string{"ROUTER", "IN", "FEC", "KIND", "DOES", "NEXT HOP", "NEIGHBOR"}}
	for _, r := range rows {
		if len(r.Hops) == 0 {
			table.Rows = append(table.Rows, []string{r.Router, labelText(r.Label), r.FEC, orDash(r.Kind), "drop", "-", "-"})
		}
		for _, h := range r.Hops {
			table.Rows = append(table.Rows, []string{r.Router, labelText(r.Label), r.FEC, orDash(r.Kind), h.does(), h.to(), orDash(h.Neighbor)})
		}
	}
	return rows, table, nil
}
