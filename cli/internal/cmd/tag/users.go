package tag

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/alloc"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// usersRow is what a router steers users by.
type usersRow struct {
	Router   string            `json:"router"`
	Services []steeredRow      `json:"services"`
	Refused  map[string]uint64 `json:"refused"` // neighbors' bindings, and words of who is active, that were not taken, by reason
	Tagless  map[string]uint64 `json:"tagless"` // packets of reactive services that came without a tag from routers, by what came of them
}

type steeredRow struct {
	Service    string   `json:"service"`
	VIPs       []string `json:"vips"`
	Voucher    string   `json:"voucher"` // the director's router
	Epoch      string   `json:"epoch"`
	Servers    uint32   `json:"servers"`
	Failing    []string `json:"failing"`    // unwell or silent on the control channel: their users are at standbys
	Exceptions uint32   `json:"exceptions"` // users whose server is not the allocation's
	Reactive   bool     `json:"reactive"`
	All        bool     `json:"all"`        // all users are sent along trees, neither active ones nor exceptions alone
	Active     uint32   `json:"active"`     // of a reactive service, where not all are: users that are
	UsersOnly  bool     `json:"users_only"` // exceptions alone are sent along trees: users whose connections are pinned to servers that have lost them
}

func newUsers(o *options) *cobra.Command {
	cmd := o.verb("users", "Show the services whose users routers send along servers' trees", showUsers)
	cmd.Long = `Show the services whose users routers send along servers' trees: by whose word, and of what epoch. Users of
servers that are FAILING, by the control channel, are at those servers' standbys. ACTIVE are users of a
reactive service that have sent something: others go by the route, but for the director's router, which sends all. With none ACTIVE it is
EXCEPTIONS alone that are sent along trees, and all others go by the route. EXCEPTIONS are users whose connections are pinned to servers that
have lost them. REFUSED are all bindings that the router
has not taken of its neighbors, of any service, with the reasons.`
	return cmd
}

func showUsers(_ context.Context, _ way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
	rows := []usersRow{}
	table := cmdutil.Table{Header: []string{"ROUTER", "SERVICE", "VIPS", "VOUCHER", "EPOCH", "SERVERS", "FAILING", "EXCEPTIONS", "ACTIVE", "REFUSED"}}
	for _, answer := range all {
		r := usersOf(answer)
		rows = append(rows, r)
		refused := reasons(r.Refused)
		for _, s := range r.Services {
			table.Rows = append(table.Rows, []string{
				r.Router, s.Service, strings.Join(s.VIPs, ","), s.Voucher, s.Epoch, count(s.Servers), orDash(strings.Join(s.Failing, ",")), count(s.Exceptions), s.active(), refused,
			})
		}
		if len(r.Services) == 0 && len(r.Refused) > 0 {
			table.Rows = append(table.Rows, []string{r.Router, "-", "-", "-", "-", "-", "-", "-", refused})
		}
	}
	return rows, table, nil
}

func usersOf(answer *tdpdv1.Answer) usersRow {
	st := answer.GetStatus()
	r := usersRow{Router: answer.GetRouter(), Services: []steeredRow{}, Refused: map[string]uint64{}, Tagless: map[string]uint64{}}
	maps.Copy(r.Refused, st.GetUserBindingsRefused())
	maps.Copy(r.Tagless, st.GetTagless())
	for _, s := range st.GetSteered() {
		r.Services = append(r.Services, steeredRow{
			s.GetService(), s.GetVips(), s.GetVoucher(), alloc.EpochFromProto(s.GetEpoch()).String(), s.GetServers(), append([]string{}, s.GetFailing()...), s.GetUsers(),
			s.GetReactive(), s.GetAll(), s.GetActive(), s.GetUsersOnly(),
		})
	}
	return r
}

// active is a cell.
func (s steeredRow) active() string {
	switch {
	case s.UsersOnly:
		return "none"
	case !s.Reactive:
		return "-"
	case s.All:
		return "all"
	}
	return count(s.Active)
}

// reasons are counts in one cell.
func reasons(counts map[string]uint64) string {
	var out []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprint(counts[reason], " ", reason))
	}
	return orDash(strings.Join(out, ", "))
}
