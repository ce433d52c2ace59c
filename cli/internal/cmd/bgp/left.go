package bgp

import (
	"context"
	"errors"
	"fmt"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

type leftRow struct {
	Router  string `json:"router"`
	Service string `json:"service"`
	Portion string `json:"portion"`
	Server  string `json:"server,omitempty"` // none: of several
	Reason  string `json:"reason"`
}

// leftWords are reasons, in words.
var leftWords = map[string]string{
	"not_prefix": "its mask is no prefix",
	"hashed":     "IPv6 users are spread by a hash",
	"by_port":    "users are told apart by source port, too",
	"no_address": "the server has no address of the family, nor a VRF",
	"over_limit": "there would be more rules than bgp.flowspec.most",
}

// showLeft shows whom FlowSpec rules leave to the director.
func (o *options) showLeft(ctx context.Context) error {
	all, failed := o.each(ctx, &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Left{Left: &tdpdv1.BGPLeftRequest{}}})
	if len(all) == 0 {
		return failed
	}
	rows := []leftRow{}
	for _, a := range all {
		shown, left := a.answer.GetLeft().GetPortions(), uint64(0)
		for _, p := range shown {
			rows = append(rows, leftRow{a.router, p.GetService(), p.GetPortion(), p.GetServer(), p.GetReason()})
		}
		for _, n := range a.answer.GetLeft().GetReasons() {
			left += n
		}
		if more := left - uint64(len(shown)); more > 0 {
			fmt.Fprintf(o.factory.Err, "router %s leaves %d portions more\n", a.router, more)
		}
	}
	table := cmdutil.Table{Header: []string{"ROUTER", "SERVICE", "PORTION", "SERVER", "WHY"}}
	for _, r := range rows {
		why, server := leftWords[r.Reason], r.Server
		if why == "" {
			why = r.Reason
		}
		if server == "" {
			server = "several"
		}
		table.Rows = append(table.Rows, []string{r.Router, r.Service, r.Portion, server, why})
	}
	return errors.Join(o.factory.Print(rows, table), failed)
}
