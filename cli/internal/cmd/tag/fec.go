package tag

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

type fecRow struct {
	Router string   `json:"router"`
	FEC    string   `json:"fec"`
	Kind   string   `json:"kind,omitempty"` // transit, attached, server; none: no route leads there
	Server bool     `json:"server"`
	Plain  bool     `json:"plain"` // no label here: a session with GTSM is there
	Local  *uint32  `json:"local,omitempty"`
	Route  string   `json:"route,omitempty"`
	Metric uint32   `json:"metric"`
	Hops   []hopRow `json:"hops"`
}

func newFEC(o *options) *cobra.Command {
	about := &tdpdv1.FECsRequest{}
	cmd := o.command("fec [ADDRESS|PREFIX]", "Show what has labels at routers, and where it leads", func(ctx context.Context, w way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
		rows, err := fecs(ctx, w, all, about)
		return rows, fecTable(rows), err
	})
	cmd.Long = `Show what has labels at routers, and where it leads: all FECs, that of a PREFIX, or the one that packets to an ADDRESS follow.`
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.ValidArgsFunction = o.completeServers
	o.routerFlag(cmd)
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			if err := aboutWhat(about, args[0]); err != nil {
				return err
			}
		}
		return inner(cmd, args)
	}
	return cmd
}

// aboutWhat takes an address or a prefix.
func aboutWhat(about *tdpdv1.FECsRequest, text string) error {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		about.Address = a.String()
		return nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return fmt.Errorf("%q is neither an address nor a prefix: want 10.0.0.1 or 10.0.0.0/24", text)
	}
	about.Prefix = p.Masked().String()
	return nil
}

func fecs(ctx context.Context, w way, all []*tdpdv1.Answer, about *tdpdv1.FECsRequest) ([]fecRow, error) {
	rows := []fecRow{}
	for _, answer := range all {
		router := answer.GetRouter()
		err := eachFEC(ctx, w, router, about, func(f *tdpdv1.FEC) {
			rows = append(rows, fecRow{router, f.GetPrefix(), f.GetKind(), f.GetServer(), f.GetPlain(), f.Local, f.GetRoute(), f.GetMetric(), hopsOf(f.GetHops())})
		})
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func fecTable(rows []fecRow) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"ROUTER", "FEC", "KIND", "LOCAL", "ROUTE", "DOES", "NEXT HOP", "NEIGHBOR"}}
	for _, r := range rows {
		hops := r.Hops
		if len(hops) == 0 {
			hops = []hopRow{{}}
		}
		for _, h := range hops {
			to := "-"
			if len(r.Hops) > 0 {
				to = h.to()
			}
			table.Rows = append(table.Rows, []string{r.Router, r.FEC, orDash(r.Kind), labelText(r.Local), r.route(), h.does(), to, orDash(h.Neighbor)})
		}
	}
	return table
}

// route is the route that a FEC follows; its own, of IPv4 and without a metric, wins against labels.
func (r fecRow) route() string {
	pushes := slices.ContainsFunc(r.Hops, func(h hopRow) bool { return h.Operation == "push" })
	if r.Metric == 0 && r.Route == r.FEC && pushes && !strings.Contains(r.Route, ":") {
		return r.Route + " (no metric: wins against labels)"
	}
	if r.Plain && r.Kind == "transit" {
		return r.Route + " (no labels: a session with GTSM is there)"
	}
	return orDash(r.Route)
}
