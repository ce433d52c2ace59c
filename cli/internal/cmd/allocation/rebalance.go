package allocation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
)

type rebalanceOptions struct {
	factory  *cmdutil.Factory
	services []string
	dryRun   bool
	handover string // empty: connections are not looked at
}

func newRebalance(f *cmdutil.Factory) *cobra.Command {
	o := rebalanceOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "rebalance [SERVICE]",
		Short: "Wait for the leader's rebalancing; with --dry-run show what would move and why",
		Long: `With --dry-run show what the leader would move now, and why: by the leader's own rules, from the servers as they are registered
this moment, and by the loads that they registered with. Only what has to move moves. Under policies that follow reports (load,
least-connections, wanted) it is what the next decision would do, which the leader takes once an interval.

Without, wait until the allocations are the right ones, at most for --timeout: the director that leads rebalances by itself as
soon as a server joins, leaves, dies, is drained or gets another weight. There is nothing else to start, and nobody to ask.

With --handover and --dry-run each server is asked what would become of its live connections by that strategy. With --handover transfer alone, servers
then fetch what others keep of their users' connections: what was left behind, for it did not move in time.`,
		Example: "  manycast allocation rebalance web --dry-run\n  manycast allocation rebalance web --handover transfer --dry-run",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.services = args
			return o.run(cmd.Context())
		},
		ValidArgsFunction: pool.CompleteServices(f),
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what would move, and move nothing")
	cmd.Flags().StringVar(&o.handover, "handover", "", "reset, forward, transfer or pin: what becomes of live connections")
	_ = cmd.RegisterFlagCompletionFunc("handover", cobra.FixedCompletions(strategies(), cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return cmd
}

// rebalance is what would move, as `-o json` writes it.
type rebalance struct {
	Service        string   `json:"service"`
	Epoch          string   `json:"epoch,omitempty"`
	Slots          int      `json:"slots"`
	Moved          int      `json:"moved"`
	Needed         int      `json:"needed"`
	FractionMoved  float64  `json:"fraction_moved"`
	FractionNeeded float64  `json:"fraction_needed"`
	Note           string   `json:"note,omitempty"`
	Warning        string   `json:"warning,omitempty"`
	Servers        []change `json:"servers"`
	Portions       []fixed  `json:"portions,omitempty"`
	Cost           *cost    `json:"cost,omitempty"`
}

// fixed is a portion that goes, or went, to a server of its own, or was asked for in vain.
type fixed struct {
	Portion string `json:"portion"`
	Now     string `json:"server_now,omitempty"`
	Next    string `json:"server_next,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

type change struct {
	Name   string `json:"name"`
	Now    int    `json:"slots_now"`
	Next   int    `json:"slots_next"`
	Reason string `json:"reason,omitempty"`
}

func (o rebalanceOptions) check() error {
	switch {
	case o.handover == "":
		return nil
	case !slices.Contains(strategies(), o.handover):
		return fmt.Errorf("--handover %q: want %s", o.handover, strings.Join(strategies(), ", "))
	case !o.dryRun && o.handover != string(service.Transfer):
		return fmt.Errorf("--handover %s: without --dry-run there is transfer alone; what becomes of connections the service's handover says", o.handover)
	}
	return nil
}

func (o rebalanceOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	s, err := pool.Open(ctx, o.factory)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	if _, err := snap.Select(o.services...); err != nil {
		return err
	}
	if !o.dryRun {
		return o.wait(ctx, s)
	}
	services, err := snap.Select(o.services...)
	if err != nil {
		return err
	}
	all := []rebalance{}
	for _, svc := range services {
		r, next, err := preview(svc)
		if err != nil {
			return err
		}
		if o.handover != "" && !next.Zero() {
			c := costOf(ctx, s, svc, next, o.handover)
			r.Cost = &c
		}
		all = append(all, r)
	}
	if err := o.factory.Print(all, rebalanceTable(all)); err != nil || o.factory.Output != "table" {
		return err
	}
	for _, r := range all {
		fmt.Fprintln(o.factory.Out, r.summary())
		if r.Warning != "" {
			fmt.Fprintf(o.factory.Out, "%s: warning: %s\n", r.Service, r.Warning)
		}
		for _, f := range r.Portions {
			fmt.Fprintf(o.factory.Out, "%s: portion %s\n", r.Service, f)
		}
		if r.Cost != nil {
			for _, line := range r.Cost.lines() {
				fmt.Fprintf(o.factory.Out, "%s: %s\n", r.Service, line)
			}
		}
	}
	return nil
}

// wait lets the leader do its work, and says what came of it.
func (o rebalanceOptions) wait(ctx context.Context, s *pool.Store) error {
	snap, err := s.Wait(ctx, func(snap *pool.Snapshot) bool {
		services, _ := snap.Select(o.services...) // one deleted meanwhile needs nothing
		return !slices.ContainsFunc(services, func(svc *pool.Service) bool { return !svc.Settled() })
	})
	if err != nil {
		return fmt.Errorf("rebalancing is the leader's own work, it cannot be asked for: %w", err)
	}
	services, err := snap.Select(o.services...)
	if err != nil {
		return err
	}
	if o.handover != "" {
		asked, err := fetch(ctx, s, services)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.factory.Err, "manycast: servers ask for what others keep of their users' connections: %s\n", strings.Join(asked, ", "))
	}
	type state struct {
		Service string `json:"service"`
		Epoch   string `json:"epoch,omitempty"`
		State   string `json:"state"`
	}
	states := []state{}
	table := cmdutil.Table{Header: []string{"SERVICE", "EPOCH", "STATE"}}
	for _, svc := range services {
		st := state{Service: svc.Spec.Name, State: "balanced: nothing to move; the leader rebalances by itself"}
		if _, _, err := svc.Next(); err != nil {
			st.State = err.Error()
		}
		if !svc.Committed.Zero() {
			st.Epoch = svc.Committed.Epoch.String()
		}
		states = append(states, st)
		table.Rows = append(table.Rows, []string{st.Service, pool.Epoch(svc.Committed), st.State})
	}
	return o.factory.Print(states, table)
}

// preview asks the allocator what the leader asks it. next is zero where nobody may own anything.
func preview(svc *pool.Service) (r rebalance, next alloc.Allocation, err error) {
	r = rebalance{Service: svc.Spec.Name, Slots: svc.Spec.Slots.Count(), Servers: []change{}}
	now := svc.Committed.Counts()
	next, move, why, err := svc.Rebalanced()
	counts := next.Counts()
	switch {
	case errors.Is(err, pool.ErrStatic):
		r.Note = err.Error()
		return r, next, nil
	case errors.Is(err, alloc.ErrNoServer):
		r.Note, counts = err.Error()+": the last allocation stays", now
	case err != nil:
		return r, next, fmt.Errorf("service %s: %w", svc.Spec.Name, err)
	default:
		r.Epoch, r.Moved, r.Needed = next.Epoch.String(), move.Slots, move.SlotsNeeded
		r.FractionMoved, r.FractionNeeded = move.FractionMoved(), move.FractionNeeded()
		if was := svc.Committed.Slots; !svc.Committed.Zero() && was != svc.Spec.Slots {
			r.Note = fmt.Sprintf("the space is cut anew, from %v to %v", was, svc.Spec.Slots)
		} else if move.Moved == 0 && !next.Same(svc.Committed) {
			r.Note = "standbys change alone"
		}
	}
	for _, m := range svc.Servers {
		c := change{Name: m.Name, Now: now[m.Name], Next: counts[m.Name]}
		c.Reason = reason(svc, m, c, why)
		r.Servers = append(r.Servers, c)
	}
	if err == nil {
		r.Portions = portions(svc.Committed, next, why)
		r.Warning = text(svc.CheckJoins())
	}
	return r, next, nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// portions are the fixed ones that change or have something said of them.
func portions(before, after alloc.Allocation, why []policy.Reason) []fixed {
	said, seen := map[string]string{}, map[string]bool{}
	var out []fixed
	for _, r := range why {
		if r.Portion.IsValid() {
			q, text := r.Portion.String(), r.Server+" "+strings.TrimSuffix(r.Text, ":")
			if said[q] != "" {
				text = said[q] + ", " + text
			}
			said[q] = text
		}
	}
	add := func(q portion.Portion) {
		f := fixed{Portion: q.String(), Now: ownerOf(before, q), Next: ownerOf(after, q), Reason: said[q.String()]}
		if !seen[f.Portion] && (f.Now != f.Next || f.Reason != "") {
			out = append(out, f)
		}
		seen[f.Portion] = true
	}
	for _, q := range slices.Concat(after.Fixed, before.Fixed) {
		add(q)
	}
	for _, r := range why {
		if r.Portion.IsValid() {
			add(r.Portion)
		}
	}
	return out
}

func ownerOf(a alloc.Allocation, q portion.Portion) string {
	if i := slices.Index(a.Fixed, q); i >= 0 {
		return a.OwnerOf(a.Slots.Count() + i)
	}
	return ""
}

// reason says why a server has what it will have.
func reason(svc *pool.Service, m pool.Server, c change, why []policy.Reason) string {
	switch {
	case m.Drained:
		return "is drained"
	case m.Health() != "healthy":
		return "is " + m.Health()
	case svc.Spec.Policy != alloc.Equal && m.Weight == 0:
		return "has weight 0"
	case c.Now == c.Next:
		return ""
	case !slices.Contains(svc.Committed.Servers, m.Name):
		return "joins"
	case said(m.Name, why) != "":
		return said(m.Name, why)
	case svc.Spec.Policy == alloc.Weighted:
		return "its share changes, weight " + strconv.Itoa(m.Weight)
	}
	return "its share changes"
}

// said is what the policy says of a server's share.
func said(server string, why []policy.Reason) string {
	for _, r := range why {
		if r.Server == server && !r.Portion.IsValid() {
			return r.Text
		}
	}
	return ""
}

func rebalanceTable(all []rebalance) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"SERVICE", "SERVER", "NOW", "NEXT", "CHANGE", "WHY"}}
	for _, r := range all {
		for _, c := range r.Servers {
			why := c.Reason
			if why == "" {
				why = "-"
			}
			table.Rows = append(table.Rows, []string{
				r.Service, c.Name, strconv.Itoa(c.Now), strconv.Itoa(c.Next), signed(c.Next - c.Now), why,
			})
		}
	}
	return table
}

func signed(n int) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%+d", n)
}

// String is "10.9.0.0/16: its slots -> s1; s1 asked for".
func (f fixed) String() string {
	place := func(server string) string {
		if server == "" {
			return "its slots"
		}
		return server
	}
	text := fmt.Sprintf("%s: %s -> %s", f.Portion, place(f.Now), place(f.Next))
	if f.Now == f.Next {
		text = fmt.Sprintf("%s: stays with %s", f.Portion, place(f.Now))
	}
	if f.Reason != "" {
		text += "; " + f.Reason
	}
	return text
}

func (r rebalance) summary() string {
	text := "nothing moves"
	switch {
	case r.Moved == 0 && r.FractionMoved > 0:
		text = fmt.Sprintf("fixed portions move alone (%s of the users)", pool.Percent(r.FractionMoved))
	case r.Moved > 0:
		text = fmt.Sprintf("%d of %d slots move (%s of the users), at least %d must", r.Moved, r.Slots, pool.Percent(r.FractionMoved), r.Needed)
	}
	if r.Note != "" {
		text += "; " + r.Note
	}
	return r.Service + ": " + text
}
