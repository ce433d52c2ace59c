package service

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func newWhy(f *cmdutil.Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "why [NAME] SOURCE",
		Short: "Say which server a source address reaches, and why",
		Long: `Say which server owns a source address, by which slot and portion, who stands by, and since which epoch. NAME may be left out
when there is one service. What routers forward by are the joins that follow from this: see them with manycast igmp.`,
		Example: "  manycast service why web 198.51.100.7\n  manycast service why 198.51.100.7",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				args = []string{"", args[0]}
			}
			return why(cmd.Context(), f, args[0], args[1])
		},
		ValidArgsFunction: pool.CompleteServices(f),
	}
}

// whyAnswer is what `-o json` writes.
type whyAnswer struct {
	Service  string     `json:"service"`
	Source   string     `json:"source"`
	Server   string     `json:"server"`
	Address  string     `json:"address,omitempty"`
	Health   string     `json:"health"`
	Slot     *int       `json:"slot,omitempty"`
	Slots    string     `json:"slots,omitempty"`
	Fixed    bool       `json:"fixed,omitempty"` // the portion is fixed, whatever the slot
	Portion  string     `json:"portion"`
	JoinedAs string     `json:"joined_as"`
	Standby  string     `json:"standby,omitempty"`
	Epoch    string     `json:"epoch,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Next     string     `json:"next,omitempty"`
}

func why(ctx context.Context, f *cmdutil.Factory, name, source string) error {
	addr, err := netip.ParseAddr(source)
	if err != nil {
		return fmt.Errorf("source %q is not an address: want one such as 198.51.100.7", source)
	}
	s, err := pool.Open(ctx, f)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	svc, err := snap.Only()
	if name != "" {
		svc, err = snap.Service(name)
	}
	if err != nil {
		return err
	}
	moves, err := s.Moves(ctx, svc.Spec.Name)
	if err != nil {
		return err
	}
	a, err := explain(svc, addr.Unmap(), moves)
	if err != nil {
		return fmt.Errorf("service %s: %w", svc.Spec.Name, err)
	}
	return f.Print(a, a.table(snap.At, svc))
}

func explain(svc *pool.Service, addr netip.Addr, moves []*allocv1.Move) (whyAnswer, error) {
	a := whyAnswer{Service: svc.Spec.Name, Source: addr.String()}
	if svc.Spec.Static() {
		for _, m := range svc.Servers {
			if p, ok := covering(svc.Users(m.Name), addr); ok {
				a.Server, a.Portion, a.JoinedAs = m.Name, p.String(), p.String()
			}
		}
		if a.Server == "" {
			return a, fmt.Errorf("no server has a portion with %v in it", addr)
		}
	} else {
		ans, err := svc.Committed.Why(addr)
		if err != nil {
			return a, err
		}
		joined, _ := covering(svc.Users(ans.Owner), addr)
		a.Server, a.Slot, a.Slots, a.Fixed = ans.Owner, &ans.Slot, svc.Committed.Slots.String(), ans.Fixed
		a.Portion, a.JoinedAs = ans.Portion.String(), joined.String()
		a.Standby, a.Epoch = ans.Standby, svc.Committed.Epoch.String()
		a.Since, a.Reason = began(svc, moves)
		if next, err := svc.Prepared.Why(addr); err == nil && next.Owner != ans.Owner {
			a.Next = next.Owner
		}
	}
	m, _ := svc.Server(a.Server)
	a.Address, a.Health = m.Address, m.Health()
	return a, nil
}

// began returns when the committed allocation came to hold, and why. The bus' entry may have been written again since, the
// move's record is written when the last agent is done: the earlier of the two is the closer.
func began(svc *pool.Service, moves []*allocv1.Move) (*time.Time, string) {
	since, reason := svc.Since, ""
	for _, m := range moves {
		if e := svc.Committed.Epoch; m.GetEpoch().GetTerm() == e.Term && m.GetEpoch().GetNumber() == e.Number {
			reason = m.GetReason()
			if at := time.Unix(0, m.GetAtUnixNano()); at.Before(since) {
				since = at
			}
		}
	}
	since = since.UTC().Truncate(time.Millisecond)
	return &since, reason
}

func covering(users portion.Set, addr netip.Addr) (portion.Portion, bool) {
	i := slices.IndexFunc(users.Permit, func(p portion.Portion) bool { return p.Contains(addr) })
	if i < 0 || !users.Contains(addr) {
		return portion.Portion{}, false
	}
	return users.Permit[i], true
}

// reached is how users' packets come to their servers.
func reached(s service.Service) string {
	if s.Mode == service.Tags {
		return "by tags"
	}
	return "group " + s.Group.String()
}

func (a whyAnswer) table(now time.Time, svc *pool.Service) cmdutil.Table {
	lines := [][]string{
		{"source", a.Source},
		{"service", fmt.Sprintf("%s, vip %v, %s", a.Service, svc.Spec.VIP, reached(svc.Spec))},
		{"server", fmt.Sprintf("%s, %s, %s", a.Server, a.Address, a.Health)},
	}
	if a.Slot == nil {
		return pool.Details(append(lines, []string{"portion", a.Portion + ", static"}))
	}
	standby := a.Standby
	if standby == "" {
		standby = "none: there is no second server"
	}
	epoch := fmt.Sprintf("%s, since %s (%s ago)", a.Epoch, a.Since.Format(time.DateTime), pool.Age(now.Sub(*a.Since)))
	if a.Reason != "" {
		epoch += ": " + a.Reason
	}
	cell := []string{"slot", fmt.Sprintf("%d of %d by %s: %s", *a.Slot, svc.Committed.Slots.Count(), a.Slots, a.Portion)}
	if a.Fixed {
		cell = []string{"portion", a.Portion + ", fixed"}
	}
	lines = append(lines,
		cell,
		[]string{"joined as", a.JoinedAs},
		[]string{"standby", standby},
		[]string{"epoch", epoch},
	)
	if a.Next != "" {
		lines = append(lines, []string{"next", fmt.Sprintf("%s, by epoch %v that is being prepared", a.Next, svc.Prepared.Epoch)})
	}
	return pool.Details(lines)
}
