package service

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
)

func newList(f *cmdutil.Factory) *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "List the services",
		Args:              cobra.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return list(cmd.Context(), f) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

type listRow struct {
	Name    string   `json:"name"`
	VIP     string   `json:"vip"`
	VIP6    string   `json:"vip6,omitempty"`
	Group   string   `json:"group,omitempty"`
	Ports   []string `json:"ports"`
	Mode    string   `json:"mode"`
	Policy  string   `json:"policy"`
	Slots   string   `json:"slots"`
	Static  bool     `json:"static"`
	Healthy int      `json:"servers_healthy"`
	Servers int      `json:"servers"`
	Epoch   string   `json:"epoch,omitempty"`
}

func list(ctx context.Context, f *cmdutil.Factory) error {
	s, err := pool.Open(ctx, f)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	rows := []listRow{}
	table := cmdutil.Table{Header: []string{"NAME", "VIP", "GROUP", "PORTS", "MODE", "POLICY", "SLOTS", "HEALTHY", "EPOCH"}}
	for _, svc := range snap.Services {
		r := rowOf(svc)
		rows = append(rows, r)
		healthy := fmt.Sprintf("%d of %d", r.Healthy, r.Servers)
		if r.Static {
			healthy = "unknown"
		}
		table.Rows = append(table.Rows, []string{
			r.Name, r.VIP, cmp.Or(r.Group, "-"), strings.Join(r.Ports, ","), r.Mode, r.Policy, r.Slots, healthy,
			pool.Epoch(svc.Committed),
		})
	}
	return f.Print(rows, table)
}

// address is the text of one; none: empty.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func rowOf(svc *pool.Service) listRow {
	r := listRow{
		Name: svc.Spec.Name, VIP: svc.Spec.VIP.String(), VIP6: address(svc.Spec.VIP6), Group: address(svc.Spec.Group), Ports: []string{}, Mode: svc.Spec.Mode,
		Policy: string(svc.Spec.Policy), Slots: svc.Spec.Slots.String(), Static: svc.Spec.Static(), Servers: len(svc.Servers),
	}
	for _, p := range svc.Spec.Ports {
		r.Ports = append(r.Ports, p.String())
	}
	for _, m := range svc.Servers {
		if m.Health() == "healthy" {
			r.Healthy++
		}
	}
	if !svc.Committed.Zero() {
		r.Epoch = svc.Committed.Epoch.String()
	}
	return r
}
