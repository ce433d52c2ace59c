package service

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/service"
)

func newShow(f *cmdutil.Factory) *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a service; with -o yaml as `apply -f` takes it",
		Args:              cobra.ExactArgs(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return show(cmd.Context(), f, args[0]) },
		ValidArgsFunction: pool.CompleteServices(f),
	}
}

func show(ctx context.Context, f *cmdutil.Factory, name string) error {
	s, err := pool.Open(ctx, f)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	svc, err := snap.Service(name)
	if err != nil {
		return err
	}
	return f.Print(svc.Spec, details(snap, svc))
}

func details(snap *pool.Snapshot, svc *pool.Service) cmdutil.Table {
	r := rowOf(svc)
	lines := [][]string{
		{"name", r.Name},
		{"vip", r.VIP},
		{"group", cmp.Or(r.Group, "none")},
		{"ports", strings.Join(r.Ports, ", ")},
		{"mode", r.Mode},
		{"policy", r.Policy},
	}
	if svc.Spec.Mode == service.Tags {
		lines = append(lines, []string{"vip6", cmp.Or(r.VIP6, "none")}, []string{"refuse", string(svc.Spec.Refuse)}, []string{"steering", string(svc.Spec.Steering)})
		for _, p := range svc.Spec.Split {
			lines = append(lines, []string{"split", p.String() + ", by source port"})
		}
	}
	if b := svc.Spec.Rules().Balance; svc.Spec.Rules().FollowsReports() {
		lines = append(lines, []string{"balance", fmt.Sprintf("every %v, hysteresis %s, step %s, range %g, split %s", b.Interval,
			pool.Percent(b.Hysteresis), pool.Percent(b.Step), b.Range, pool.Percent(b.Split))})
	}
	if shed := svc.Spec.Balance.Shed; shed > 0 {
		lines = append(lines, []string{"shed", "from a load of " + pool.Percent(shed)})
	}
	for _, p := range svc.Spec.Prefixes {
		lines = append(lines, []string{"prefix " + p.Portion.String(), strings.Join(p.Servers, ", ")})
	}
	lines = append(lines, [][]string{
		{"slots", fmt.Sprintf("%s: %d", r.Slots, svc.Spec.Slots.Count())},
		{"handover", svc.Spec.Handover.String()},
	}...)
	switch {
	case r.Static:
		lines = append(lines, []string{"allocation", "static: the service says itself which server has which portions"})
	case svc.Committed.Zero():
		lines = append(lines, []string{"allocation", "none yet: " + missing(snap, svc)})
	default:
		text := fmt.Sprintf("epoch %v, since %s", svc.Committed.Epoch, pool.Age(snap.At.Sub(svc.Since)))
		if !svc.Prepared.Zero() {
			text += fmt.Sprintf("; epoch %v is being prepared", svc.Prepared.Epoch)
		}
		lines = append(lines, []string{"allocation", text})
	}
	for _, m := range svc.Servers {
		text := fmt.Sprintf("%s, %s, weight %d, %s of the users", m.Address, m.Health(), m.Weight, pool.Percent(svc.Share(m.Name)))
		if m.Drained {
			text += ", drained"
		}
		if m.Pinned > 0 {
			text += fmt.Sprintf(", %d users of others pinned", m.Pinned)
		}
		if m.Unpinned > 0 {
			text += fmt.Sprintf(", %d forwarded", m.Unpinned)
		}
		lines = append(lines, []string{"server " + m.Name, text})
	}
	return pool.Details(lines)
}

// missing says why there is no allocation.
func missing(snap *pool.Snapshot, svc *pool.Service) string {
	_, _, err := svc.Next()
	switch {
	case err != nil:
		return err.Error()
	case snap.Leader == "":
		return "no director leads"
	}
	return "director " + snap.Leader + " is about to make it"
}
