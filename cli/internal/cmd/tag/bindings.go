package tag

import (
	"cmp"
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// bindingRow is a FEC's labels between a router and one of its neighbors; without a neighbor nobody has one but the router.
type bindingRow struct {
	Router   string  `json:"router"`
	FEC      string  `json:"fec"`
	Neighbor string  `json:"neighbor,omitempty"`
	Local    *uint32 `json:"local,omitempty"`
	Sent     *uint32 `json:"sent,omitempty"`   // the router's label that the neighbor has
	Remote   *uint32 `json:"remote,omitempty"` // the neighbor's label
	InUse    bool    `json:"in_use"`
	Stale    bool    `json:"stale"`
	Leaves   bool    `json:"leaves"` // sent is withdrawn, and not released yet
}

func newBindings(o *options) *cobra.Command {
	var prefix string
	cmd := o.verb("bindings", "Show which labels routers and their neighbors have bound to FECs", func(ctx context.Context, w way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
		rows, err := bindings(ctx, w, all, prefix)
		return rows, bindingTable(rows), err
	})
	cmd.Flags().StringVar(&prefix, "prefix", "", "of this FEC alone")
	return cmd
}

func bindings(ctx context.Context, w way, all []*tdpdv1.Answer, prefix string) ([]bindingRow, error) {
	rows := []bindingRow{}
	for _, answer := range all {
		router := answer.GetRouter()
		err := eachFEC(ctx, w, router, &tdpdv1.FECsRequest{Prefix: prefix}, func(f *tdpdv1.FEC) {
			rows = append(rows, bindingsOf(router, f)...)
		})
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func bindingsOf(router string, f *tdpdv1.FEC) []bindingRow {
	var rows []bindingRow
	of := func(neighbor string, free func(bindingRow) bool) *bindingRow {
		for i := range rows {
			if rows[i].Neighbor == neighbor && free(rows[i]) {
				return &rows[i]
			}
		}
		rows = append(rows, bindingRow{Router: router, FEC: f.GetPrefix(), Neighbor: neighbor, Local: f.Local})
		return &rows[len(rows)-1]
	}
	for _, b := range f.GetRemote() {
		r := of(b.GetNeighbor(), func(r bindingRow) bool { return r.Remote == nil })
		r.Remote, r.InUse, r.Stale = &b.Label, b.GetInUse(), b.GetStale()
	}
	for _, b := range f.GetSent() {
		r := of(b.GetNeighbor(), func(r bindingRow) bool { return r.Sent == nil })
		r.Sent, r.Leaves = &b.Label, b.GetLeaves()
	}
	if len(rows) == 0 && f.Local != nil {
		of("", func(bindingRow) bool { return true })
	}
	slices.SortStableFunc(rows, func(a, b bindingRow) int { return cmp.Compare(a.Neighbor, b.Neighbor) })
	return rows
}

func bindingTable(rows []bindingRow) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"ROUTER", "FEC", "NEIGHBOR", "LOCAL", "SENT", "REMOTE", "IN USE", "NOTE"}}
	for _, r := range rows {
		note := "-"
		switch {
		case r.Stale:
			note = "stale"
		case r.Leaves:
			note = "withdrawn"
		}
		table.Rows = append(table.Rows, []string{
			r.Router, r.FEC, orDash(r.Neighbor), labelText(r.Local), labelText(r.Sent), labelText(r.Remote), yes(r.InUse), note,
		})
	}
	return table
}
