package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

type routeRow struct {
	Router      string   `json:"router"`
	Prefix      string   `json:"prefix"`
	Label       *uint32  `json:"label,omitempty"`
	NextHop     string   `json:"next_hop,omitempty"` // none: each session's own
	ASPath      []uint32 `json:"as_path"`
	MED         *uint32  `json:"med,omitempty"`
	LocalPref   *uint32  `json:"local_pref,omitempty"`
	Communities []string `json:"communities"`
	Prepend     uint32   `json:"prepend,omitempty"`
	Neighbor    string   `json:"neighbor,omitempty"` // none: the router's own
	Best        bool     `json:"best"`
	Stale       bool     `json:"stale"`
	Filtered    bool     `json:"filtered"`
	Rule        *ruleRow `json:"rule,omitempty"`
}

type ruleRow struct {
	Source      string `json:"source,omitempty"` // none: all
	Protocol    uint32 `json:"protocol,omitempty"`
	Port        uint32 `json:"port,omitempty"`
	RedirectIP  string `json:"redirect_ip,omitempty"`
	RedirectVRF string `json:"redirect_vrf,omitempty"`
}

// Families as tdpd.toml has them.
var (
	unicastFamilies  = []string{"ipv4-unicast", "ipv6-unicast"}
	labelledFamilies = []string{"ipv4-labelled", "ipv6-labelled"}
	flowFamilies     = []string{"ipv4-flowspec", "ipv6-flowspec"}
)

// shown says which routes are.
type shown struct {
	neighbor string
	told     bool
}

func (s *shown) flags(o *options, cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.neighbor, "neighbor", "", "what this neighbor has told, before policy")
	cmd.Flags().BoolVar(&s.told, "told", false, "with --neighbor: what it was told")
	_ = cmd.RegisterFlagCompletionFunc("neighbor", o.completeNeighbors) // the flag is there
}

func newRoutes(o *options) *cobra.Command {
	var s shown
	cmd := &cobra.Command{
		Use:     "routes [PREFIX]",
		Aliases: []string{"rib"},
		Short:   "Show routers' paths to prefixes, those of neighbors and their own",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.show(cmd.Context(), unicastFamilies, args, s, routeTable)
		},
	}
	s.flags(o, cmd)
	return cmd
}

func newLabels(o *options) *cobra.Command {
	var s shown
	cmd := &cobra.Command{
		Use:   "labels [PREFIX]",
		Short: "Show routers' labelled paths (RFC 8277)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.show(cmd.Context(), labelledFamilies, args, s, routeTable)
		},
	}
	s.flags(o, cmd)
	return cmd
}

func newFlowSpec(o *options) *cobra.Command {
	var s shown
	var left bool
	cmd := &cobra.Command{
		Use:   "flowspec [PREFIX]",
		Short: "Show routers' FlowSpec rules (RFC 8955), by their destination, or whom they leave to the director",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if left {
				if len(args) > 0 || s.neighbor != "" || s.told {
					return errors.New("--left is of all that a router's own rules leave: name no prefix and no neighbor")
				}
				return o.showLeft(cmd.Context())
			}
			return o.show(cmd.Context(), flowFamilies, args, s, ruleTable)
		},
	}
	s.flags(o, cmd)
	cmd.Flags().BoolVar(&left, "left", false, "show whose users go by the director, as rules cannot say where")
	return cmd
}

// show asks for routes of the families of one kind.
func (o *options) show(ctx context.Context, families, args []string, s shown, table func([]routeRow) cmdutil.Table) error {
	prefix := ""
	if len(args) > 0 {
		p, err := netip.ParsePrefix(args[0])
		if err != nil {
			return fmt.Errorf("%q is no prefix, such as 192.0.2.80/32", args[0])
		}
		prefix, families = args[0], families[:1]
		if p.Addr().Is6() {
			families = []string{strings.Replace(families[0], "ipv4", "ipv6", 1)}
		}
	}
	rows, answers := []routeRow{}, 0
	var failed error
	for _, f := range families {
		all, err := o.each(ctx, &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Routes{Routes: &tdpdv1.BGPRoutesRequest{
			Family: f, Prefix: prefix, Neighbor: s.neighbor, Told: s.told,
		}}})
		answers += len(all)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", f, err))
		}
		for _, a := range all {
			for _, p := range a.answer.GetRoutes().GetPaths() {
				rows = append(rows, routeOf(a.router, p))
			}
			if a.answer.GetRoutes().GetMore() {
				fmt.Fprintf(o.factory.Err, "router %s has more paths of %s: name a prefix\n", a.router, f)
			}
		}
	}
	if answers == 0 {
		return failed
	}
	return errors.Join(o.factory.Print(rows, table(rows)), failed)
}

func routeOf(router string, p *tdpdv1.BGPPath) routeRow {
	r := routeRow{
		Router: router, Prefix: p.GetPrefix(), NextHop: p.GetNextHop(), ASPath: append([]uint32{}, p.GetAsPath()...), MED: p.Med, LocalPref: p.LocalPref,
		Communities: append([]string{}, p.GetCommunities()...), Prepend: p.GetPrepend(), Neighbor: p.GetNeighbor(), Best: p.GetBest(), Stale: p.GetStale(), Filtered: p.GetFiltered(),
	}
	if p.GetLabelled() {
		label := p.GetLabel()
		r.Label = &label
	}
	if rule := p.GetRule(); rule != nil {
		r.Rule = &ruleRow{rule.GetSource(), rule.GetProtocol(), rule.GetPort(), rule.GetRedirectIp(), rule.GetRedirectVrf()}
	}
	return r
}

// status is as GoBGP and others have it: * valid, > best, S stale, x filtered.
func (r routeRow) status() string {
	text := "*"
	switch {
	case r.Filtered:
		text = "x"
	case r.Best:
		text = "*>"
	}
	if r.Stale {
		text += "S"
	}
	return text
}

func routeTable(rows []routeRow) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"ROUTER", "", "NETWORK", "LABEL", "NEXT HOP", "AS PATH", "NEIGHBOR", "ATTRIBUTES"}}
	for _, r := range rows {
		label, hop, neighbor := "-", r.NextHop, r.Neighbor
		if r.Label != nil {
			label = strconv.FormatUint(uint64(*r.Label), 10)
		}
		if hop == "" {
			hop = "self"
		}
		if neighbor == "" {
			neighbor = "own"
		}
		table.Rows = append(table.Rows, []string{r.Router, r.status(), r.Prefix, label, hop, orDash(words(r.ASPath)), neighbor, orDash(r.attributes())})
	}
	return table
}

func (r routeRow) attributes() string {
	var all []string
	if r.MED != nil {
		all = append(all, fmt.Sprint("med ", *r.MED))
	}
	if r.LocalPref != nil {
		all = append(all, fmt.Sprint("local-pref ", *r.LocalPref))
	}
	if r.Prepend > 0 {
		all = append(all, fmt.Sprint("prepend ", r.Prepend))
	}
	if len(r.Communities) > 0 {
		all = append(all, "community "+strings.Join(r.Communities, " "))
	}
	return strings.Join(all, ", ")
}

func words(numbers []uint32) string {
	var out []string
	for _, n := range numbers {
		out = append(out, strconv.FormatUint(uint64(n), 10))
	}
	return strings.Join(out, " ")
}

func ruleTable(rows []routeRow) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"ROUTER", "", "DESTINATION", "SOURCE", "PROTOCOL", "PORT", "REDIRECT", "NEIGHBOR"}}
	for _, r := range rows {
		rule, neighbor := r.Rule, r.Neighbor
		if rule == nil {
			rule = &ruleRow{}
		}
		if neighbor == "" {
			neighbor = "own"
		}
		redirect := rule.RedirectIP
		if rule.RedirectVRF != "" {
			redirect = "VRF " + rule.RedirectVRF
		}
		table.Rows = append(table.Rows, []string{r.Router, r.status(), r.Prefix, orAll(rule.Source), orAny(rule.Protocol), orAny(rule.Port), orDash(redirect), neighbor})
	}
	return table
}

func orAll(text string) string {
	if text == "" {
		return "all"
	}
	return text
}

func orAny(n uint32) string {
	if n == 0 {
		return "any"
	}
	return strconv.FormatUint(uint64(n), 10)
}
