package tag

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

func newTrees(o *options) *cobra.Command {
	about := &tdpdv1.FECsRequest{Servers: true}
	cmd := o.command("trees [SERVER]", "Show the tag-switched trees: of each server, or of one by its address, which label leads to it at which router", func(ctx context.Context, w way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
		rows, err := fecs(ctx, w, all, about)
		slices.SortStableFunc(rows, func(a, b fecRow) int { return cmp.Or(comparePrefixes(a.FEC, b.FEC), cmp.Compare(a.Router, b.Router)) })
		return rows, treeTable(rows), err
	})
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.ValidArgsFunction = o.completeServers
	o.routerFlag(cmd)
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			if err := aboutWhat(about, args[0]); err != nil {
				return err
			}
			if a, err := netip.ParseAddr(about.GetAddress()); err == nil {
				about.Prefix, about.Address = netip.PrefixFrom(a, a.BitLen()).String(), ""
			}
		}
		return inner(cmd, args)
	}
	return cmd
}

// comparePrefixes orders by number, not by text.
func comparePrefixes(a, b string) int {
	p, errP := netip.ParsePrefix(a)
	q, errQ := netip.ParsePrefix(b)
	if errP != nil || errQ != nil {
		return cmp.Compare(a, b)
	}
	return p.Compare(q)
}

func treeTable(rows []fecRow) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"SERVER", "ROUTER", "KIND", "IN", "DOES", "NEXT HOP", "NEIGHBOR"}}
	for _, r := range rows {
		server := r.FEC
		if p, err := netip.ParsePrefix(r.FEC); err == nil && p.IsSingleIP() {
			server = p.Addr().String()
		}
		if len(r.Hops) == 0 {
			table.Rows = append(table.Rows, []string{server, r.Router, orDash(r.Kind), labelText(r.Local), "no route", "-", "-"})
		}
		for _, h := range r.Hops {
			does := h.does()
			if r.Kind == "server" {
				does = "pop"
			}
			table.Rows = append(table.Rows, []string{server, r.Router, r.Kind, labelText(r.Local), does, h.to(), orDash(h.Neighbor)})
		}
	}
	return table
}
