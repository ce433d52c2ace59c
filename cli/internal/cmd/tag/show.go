package tag

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// NewShow returns `manycast show`, which has `manycast tag` in the words of FRR's vtysh: show mpls ldp ...
func NewShow(f *cmdutil.Factory) *cobra.Command {
	o := &options{factory: f}
	show := &cobra.Command{Use: "show", Short: "Show label switching in the words of FRR: show mpls ldp neighbor"}
	mpls := &cobra.Command{Use: "mpls", Short: "Multiprotocol label switching"}
	ldp := &cobra.Command{Use: "ldp", Short: "Label distribution protocol: what `manycast tag` shows, in FRR's columns"}
	o.socketFlag(show)
	show.AddCommand(mpls)
	mpls.AddCommand(ldp)
	ldp.AddCommand(o.ofFamily("")...)
	for _, family := range []string{"ipv4", "ipv6"} {
		of := &cobra.Command{Use: family, Short: "Of " + strings.ToUpper(family[:2]) + family[2:] + " alone"}
		of.AddCommand(o.ofFamily(family)...)
		ldp.AddCommand(of)
	}
	return show
}

// ofFamily are the commands; an empty family is for both.
func (o *options) ofFamily(family string) []*cobra.Command {
	f := frr{family}
	discovery := o.command("discovery", "Neighbors whose hellos are heard", f.discovery)
	discovery.AddCommand(o.detail("What their hellos say", f.discovery, f.discoveryDetail))
	all := []*cobra.Command{
		o.command("binding", "Labels of FECs, this router's and the neighbors'", f.bindings), discovery,
		o.command("interface", "Interfaces that LDP runs on", f.interfaces),
	}
	if family == "" {
		neighbor := o.command("neighbor", "Neighbors and the sessions with them", f.neighbors)
		neighbor.AddCommand(o.detail("What was agreed and said in the sessions", f.neighbors, f.neighborsDetail))
		all = append(all, neighbor)
	}
	for _, cmd := range all {
		for _, cmd := range append(cmd.Commands(), cmd) {
			o.routerFlag(cmd)
		}
	}
	return all
}

// frr shows things in FRR's columns, after the name of the router.
type frr struct{ family string }

// of says whether an address or prefix is of the family, and gives that of it.
func (f frr) of(text string) (family string, shown bool) {
	family = "ipv4"
	if strings.Contains(text, ":") {
		family = "ipv6"
	}
	return family, f.family == "" || f.family == family
}

func (f frr) neighbors(ctx context.Context, w way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
	rows, _, err := showNeighbors(ctx, w, all)
	table := cmdutil.Table{Header: []string{"Router", "AF", "ID", "State", "Remote Address", "Uptime"}}
	for _, answer := range all {
		for _, n := range answer.GetStatus().GetNeighbors() {
			family, _ := f.of(n.GetRemote())
			table.Rows = append(table.Rows, []string{answer.GetRouter(), family, routerID(n.GetId()), n.GetState(), orDash(n.GetRemote()), uptime(n)})
		}
	}
	return rows, table, err
}

// uptime is how long a neighbor's session has been operational.
func uptime(n *tdpdv1.Neighbor) string {
	if n.GetAgreed() == nil {
		return clock(0)
	}
	return clock(time.Duration(n.GetStateMs()) * time.Millisecond)
}

// clock is a time as 01:02:03, from a day on as 1d02h03m, from a week on as 01w2d03h.
func clock(d time.Duration) string {
	const day, week = 24 * time.Hour, 7 * 24 * time.Hour
	switch {
	case d >= week:
		return fmt.Sprintf("%02dw%dd%02dh", d/week, d%week/day, d%day/time.Hour)
	case d >= day:
		return fmt.Sprintf("%dd%02dh%02dm", d/day, d%day/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%02d:%02d:%02d", d/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second)
}

func (f frr) bindings(ctx context.Context, w way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
	rows, err := bindings(ctx, w, all, "")
	table := cmdutil.Table{Header: []string{"Router", "AF", "Destination", "Nexthop", "Local Label", "Remote Label", "In Use"}}
	shown := []bindingRow{}
	for _, r := range rows {
		family, is := f.of(r.FEC)
		if !is {
			continue
		}
		shown = append(shown, r)
		nexthop := "0.0.0.0"
		if r.Neighbor != "" {
			nexthop = routerID(r.Neighbor)
		}
		table.Rows = append(table.Rows, []string{r.Router, family, r.FEC, nexthop, labelText(r.Local), labelText(r.Remote), yes(r.InUse)})
	}
	return shown, table, err
}

type discoveryRow struct {
	Router   string `json:"router"`
	Family   string `json:"family"`
	Neighbor string `json:"neighbor"`
	adjacencyRow
}

func (f frr) discovery(_ context.Context, _ way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
	rows := []discoveryRow{}
	table := cmdutil.Table{Header: []string{"Router", "AF", "ID", "Type", "Source", "Holdtime"}}
	for _, answer := range all {
		for _, n := range answer.GetStatus().GetNeighbors() {
			for _, a := range neighborOf(answer.GetRouter(), n).Adjacencies {
				family, is := f.of(a.Source)
				if !is {
					continue
				}
				rows = append(rows, discoveryRow{answer.GetRouter(), family, n.GetId(), a})
				kind, source := "Link", a.Interface
				if a.Interface == "" {
					kind, source = "Targeted", a.Source
				}
				table.Rows = append(table.Rows, []string{answer.GetRouter(), family, routerID(n.GetId()), kind, source, hold(a.HoldMS)})
			}
		}
	}
	return rows, table, nil
}

// hold is a hold time in seconds.
func hold(ms int64) string {
	if ms < 0 {
		return "infinite"
	}
	return count(uint64(ms / 1000))
}

type interfaceRow struct {
	Router      string `json:"router"`
	Family      string `json:"family"`
	Interface   string `json:"interface"`
	Active      bool   `json:"active"`
	Adjacencies int    `json:"adjacencies"`
}

func (f frr) interfaces(_ context.Context, _ way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
	rows := []interfaceRow{}
	table := cmdutil.Table{Header: []string{"Router", "AF", "Interface", "State", "ac"}}
	for _, answer := range all {
		for _, i := range answer.GetStatus().GetInterfaces() {
			for _, family := range []string{"ipv4", "ipv6"} {
				r := interfaceRow{answer.GetRouter(), family, i.GetName(), i.GetIpv4() && family == "ipv4" || i.GetIpv6() && family == "ipv6", 0}
				if f.family != "" && family != f.family || !hasFamily(answer.GetStatus(), family) {
					continue
				}
				r.Adjacencies = adjacenciesOn(answer.GetStatus(), r)
				rows = append(rows, r)
				state := "DOWN"
				if r.Active {
					state = "ACTIVE"
				}
				table.Rows = append(table.Rows, []string{r.Router, family, r.Interface, state, count(r.Adjacencies)})
			}
		}
	}
	return rows, table, nil
}

// hasFamily says whether a router has sessions of a family at all.
func hasFamily(st *tdpdv1.Status, family string) bool {
	for _, text := range st.GetAddresses() {
		if a, err := netip.ParseAddr(text); err == nil && a.Is4() == (family == "ipv4") {
			return true
		}
	}
	return false
}

func adjacenciesOn(st *tdpdv1.Status, r interfaceRow) (n int) {
	for _, neighbor := range st.GetNeighbors() {
		for _, a := range neighbor.GetAdjacencies() {
			if of, _ := (frr{}).of(a.GetSource()); a.GetInterface() == r.Interface && of == r.Family {
				n++
			}
		}
	}
	return n
}
