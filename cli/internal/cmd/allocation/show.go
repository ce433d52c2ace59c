package allocation

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/portion"
)

type showOptions struct {
	factory  *cmdutil.Factory
	services []string
	bars     bool
	portions bool
}

func newShow(f *cmdutil.Factory) *cobra.Command {
	o := showOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "show [SERVICE]",
		Short: "Show who owns how much of the source space",
		Long: `Show the allocations of all services, or of one: per server the slots that it owns, their fraction of the source space, and
the slots that it stands by for. With --portions the same as masked portions: an address is in ADDRESS/MASK when it agrees with
ADDRESS in the bits that MASK has.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.services = args
			return o.run(cmd.Context())
		},
		ValidArgsFunction: pool.CompleteServices(f),
	}
	cmd.Flags().BoolVar(&o.bars, "bars", false, "draw the fractions as bars")
	cmd.Flags().BoolVar(&o.portions, "portions", false, "list the masked portions")
	cmd.MarkFlagsMutuallyExclusive("bars", "portions")
	return cmd
}

// shown is an allocation as `-o json` writes it.
type shown struct {
	Service string     `json:"service"`
	Epoch   string     `json:"epoch,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
	Next    string     `json:"prepared,omitempty"` // epoch
	Static  bool       `json:"static"`
	Slots   string     `json:"slots,omitempty"`
	Servers []owner    `json:"servers"`
}

type owner struct {
	Name            string            `json:"name"`
	Slots           int               `json:"slots"`
	Fraction        float64           `json:"fraction"`
	StandbySlots    int               `json:"standby_slots"`
	Portions        []portion.Portion `json:"portions,omitempty"`
	Denied          []portion.Portion `json:"denied_portions,omitempty"` // parts of the portions that others own
	StandbyPortions []portion.Portion `json:"standby_portions,omitempty"`
	StandbyDenied   []portion.Portion `json:"standby_denied_portions,omitempty"`
}

func (o showOptions) run(ctx context.Context) error {
	s, err := pool.Open(ctx, o.factory)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	services, err := snap.Select(o.services...)
	if err != nil {
		return err
	}
	all := []shown{}
	for _, svc := range services {
		all = append(all, o.shown(svc))
	}
	if o.bars && o.factory.Output == "table" {
		columns, terminal := o.factory.Terminal()
		return drawAll(o.factory.Out, all, columns, terminal)
	}
	if o.portions {
		return o.factory.Print(all, portionTable(all))
	}
	return o.factory.Print(all, ownerTable(all))
}

func (o showOptions) shown(svc *pool.Service) shown {
	a := shown{Service: svc.Spec.Name, Static: svc.Spec.Static(), Servers: []owner{}}
	committed := svc.Committed
	names := committed.Servers
	if a.Static {
		names = nil
		for _, m := range svc.Spec.Servers {
			names = append(names, m.Name)
		}
	} else if !committed.Zero() {
		since := svc.Since.UTC().Truncate(time.Millisecond)
		a.Epoch, a.Since, a.Slots = committed.Epoch.String(), &since, committed.Slots.String()
	}
	if !svc.Prepared.Zero() {
		a.Next = svc.Prepared.Epoch.String()
	}
	counts, standby := committed.Counts(), map[string]int{}
	for slot := 0; !committed.Zero() && slot < committed.Slots.Count(); slot++ {
		standby[committed.StandbyOf(slot)]++
	}
	for _, name := range names {
		w := owner{Name: name, Slots: counts[name], Fraction: svc.Share(name), StandbySlots: standby[name]}
		if o.portions {
			users := svc.Users(name)
			w.Portions, w.Denied = users.Permit, users.Deny
			if !a.Static {
				users := committed.StandbyUsers(name)
				w.StandbyPortions, w.StandbyDenied = users.Permit, users.Deny
			}
		}
		a.Servers = append(a.Servers, w)
	}
	return a
}

func ownerTable(all []shown) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"SERVICE", "EPOCH", "SERVER", "SLOTS", "FRACTION", "STANDBY FOR"}}
	for _, a := range all {
		for _, w := range a.Servers {
			slots, standby := strconv.Itoa(w.Slots), strconv.Itoa(w.StandbySlots)
			if a.Static {
				slots, standby = "-", "-"
			}
			table.Rows = append(table.Rows, []string{a.Service, a.epoch(), w.Name, slots, pool.Percent(w.Fraction), standby})
		}
		if len(a.Servers) == 0 {
			table.Rows = append(table.Rows, []string{a.Service, a.epoch(), "-", "-", "-", "-"})
		}
	}
	return table
}

func (a shown) epoch() string {
	switch {
	case a.Static:
		return "static"
	case a.Epoch == "":
		return "-"
	case a.Next != "":
		return a.Epoch + " > " + a.Next
	}
	return a.Epoch
}

func portionTable(all []shown) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"SERVICE", "EPOCH", "SERVER", "ROLE", "PORTION"}}
	for _, a := range all {
		for _, w := range a.Servers {
			for _, p := range w.Portions {
				table.Rows = append(table.Rows, []string{a.Service, a.epoch(), w.Name, "owner", p.String()})
			}
			for _, p := range w.Denied {
				table.Rows = append(table.Rows, []string{a.Service, a.epoch(), w.Name, "denied", p.String()})
			}
			for _, p := range w.StandbyPortions {
				table.Rows = append(table.Rows, []string{a.Service, a.epoch(), w.Name, "standby", p.String()})
			}
			for _, p := range w.StandbyDenied {
				table.Rows = append(table.Rows, []string{a.Service, a.epoch(), w.Name, "standby denied", p.String()})
			}
		}
	}
	return table
}
