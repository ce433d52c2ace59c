package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func newWhy(f *cmdutil.Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "why [NAME] SOURCE[:PORT]",
		Short: "Say which server a source address reaches, and why",
		Long: `Say which server owns a source address, by which slot and portion, who stands by, and since which epoch. NAME may be left out
when there is one service. What routers forward by are the joins that follow from this: see them with manycast igmp. With mode tags
users of IPv6 go by what stands in for them, and of users that the service splits each connection by what stands in for address and
port.`,
		Example: "  manycast service why web 198.51.100.7\n  manycast service why 198.51.100.7\n  manycast service why api [2001:db8::7]:40000",
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
	JoinedAs string     `json:"joined_as,omitempty"`
	Standin  string     `json:"standin,omitempty"` // the slot is its
	Split    string     `json:"split,omitempty"`   // the prefix whose users are told apart by port, too
	Note     string     `json:"note,omitempty"`
	Standby  string     `json:"standby,omitempty"`
	Epoch    string     `json:"epoch,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Next     string     `json:"next,omitempty"`
}

func why(ctx context.Context, f *cmdutil.Factory, name, source string) error {
	from, err := parseSource(source)
	if err != nil {
		return err
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
	a, err := explain(svc, from, moves)
	if err != nil {
		return fmt.Errorf("service %s: %w", svc.Spec.Name, err)
	}
	return f.Print(a, a.table(snap.At, svc))
}

// parseSource reads an address, or one with a port; without it is 0.
func parseSource(text string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddr(text)
	if err == nil {
		return netip.AddrPortFrom(addr.Unmap(), 0), nil
	}
	from, err := netip.ParseAddrPort(text)
	if err != nil || from.Port() == 0 {
		return from, fmt.Errorf("source %q is not an address: want one such as 198.51.100.7, or with a port 198.51.100.7:40000 or [2001:db8::7]:40000", text)
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), nil
}

func sourceText(from netip.AddrPort) string {
	if from.Port() == 0 {
		return from.Addr().String()
	}
	return from.String()
}

// inAllocation finds the source in an allocation: it, or what stands in for it.
func (a *whyAnswer) inAllocation(svc *pool.Service, from netip.AddrPort) (find func(alloc.Allocation) (alloc.Answer, error), err error) {
	addr, spec := from.Addr(), svc.Spec
	if addr.Is6() && spec.Mode == service.Tags && !spec.VIP6.IsValid() {
		return nil, errors.New("it has no vip6, and so no users of IPv6")
	}
	prefix, split := spec.Split.Of(addr)
	switch {
	case split && from.Port() == 0:
		a.Split = prefix.String()
		a.Note = fmt.Sprintf("split by port (%v): here goes what has none; for a connection say %v", prefix, netip.AddrPortFrom(addr, 40000))
	case split:
		a.Split = prefix.String()
	case from.Port() != 0:
		a.Note = "not split: its port does not matter"
	}
	user, standin := spec.Split.User(from)
	if !standin || spec.Mode != service.Tags {
		return func(in alloc.Allocation) (alloc.Answer, error) { return in.Why(addr) }, nil
	}
	a.Standin = user.String()
	return func(in alloc.Allocation) (alloc.Answer, error) { return in.WhyStandin(user) }, nil
}

func explain(svc *pool.Service, from netip.AddrPort, moves []*allocv1.Move) (whyAnswer, error) {
	a, addr := whyAnswer{Service: svc.Spec.Name, Source: sourceText(from)}, from.Addr()
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
		find, err := a.inAllocation(svc, from)
		if err != nil {
			return a, err
		}
		ans, err := find(svc.Committed)
		if err != nil {
			return a, err
		}
		a.Server, a.Slot, a.Slots, a.Fixed = ans.Owner, &ans.Slot, svc.Committed.Slots.String(), ans.Fixed
		a.Portion = ans.Portion.String()
		if joined, ok := covering(svc.Users(ans.Owner), addr); ok && a.Standin == "" {
			a.JoinedAs = joined.String()
		}
		a.Standby, a.Epoch = ans.Standby, svc.Committed.Epoch.String()
		a.Since, a.Reason = began(svc, moves)
		if next, err := find(svc.Prepared); err == nil && next.Owner != ans.Owner {
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

// standsFor says what the stand-in is of.
func (a whyAnswer) standsFor() string {
	if a.Split != "" && a.Note == "" {
		return fmt.Sprintf("by %s, of address and port: %s is split", a.Standin, a.Split)
	}
	return fmt.Sprintf("by %s, of its first 64 bits", a.Standin)
}

func (a whyAnswer) table(now time.Time, svc *pool.Service) cmdutil.Table {
	lines := [][]string{{"source", a.Source}}
	if a.Note != "" {
		lines = append(lines, []string{"", a.Note})
	}
	if a.Standin != "" {
		lines = append(lines, []string{"stood in for", a.standsFor()})
	}
	lines = append(lines, [][]string{
		{"service", fmt.Sprintf("%s, vip %v, %s", a.Service, svc.Spec.VIP, reached(svc.Spec))},
		{"server", fmt.Sprintf("%s, %s, %s", a.Server, a.Address, a.Health)},
	}...)
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
	lines = append(lines, cell)
	if a.JoinedAs != "" {
		lines = append(lines, []string{"joined as", a.JoinedAs})
	}
	lines = append(lines, []string{"standby", standby}, []string{"epoch", epoch})
	if a.Next != "" {
		lines = append(lines, []string{"next", fmt.Sprintf("%s, by epoch %v that is being prepared", a.Next, svc.Prepared.Epoch)})
	}
	return pool.Details(lines)
}
