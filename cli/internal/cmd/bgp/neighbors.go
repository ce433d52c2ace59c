package bgp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

type neighborRow struct {
	Router     string      `json:"router"`
	Neighbor   string      `json:"neighbor,omitempty"`
	AS         uint32      `json:"as"`
	RouterID   string      `json:"router_id,omitempty"`
	State      string      `json:"state"`
	SinceMS    int64       `json:"since_ms"`
	Flaps      uint32      `json:"flaps"`
	Restarting bool        `json:"restarting"`
	OverLimit  bool        `json:"over_limit"`
	Down       bool        `json:"down"`
	HoldMS     int64       `json:"hold_ms"`
	Families   []familyRow `json:"families"`
	Sent       uint64      `json:"updates_sent"`
	Received   uint64      `json:"updates_received"`
}

type familyRow struct {
	Family   string `json:"family"`
	Agreed   bool   `json:"agreed"`
	Received uint64 `json:"received"` // paths, before policy
}

func newNeighbors(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "neighbors",
		Aliases: []string{"neighbor"},
		Short:   "Show routers' BGP sessions",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, failed := o.each(cmd.Context(), askNeighbors())
			if len(all) == 0 {
				return failed
			}
			rows := []neighborRow{}
			for _, a := range all {
				st := a.answer.GetNeighbors()
				for _, n := range st.GetNeighbors() {
					rows = append(rows, neighborOf(a.router, n))
				}
				if n := st.GetSpeakerRestarts(); n > 0 {
					fmt.Fprintf(o.factory.Err, "router %s: its speaker has ended %d times by itself: its log says why\n", a.router, n)
				}
			}
			return errors.Join(o.factory.Print(rows, neighborTable(rows)), failed)
		},
	}
}

func neighborOf(router string, n *tdpdv1.BGPNeighbor) neighborRow {
	r := neighborRow{
		Router: router, Neighbor: n.GetAddress(), AS: n.GetAs(), RouterID: n.GetRouterId(), State: n.GetState(), SinceMS: n.GetSinceMs(), Flaps: n.GetFlaps(), Restarting: n.GetRestarting(),
		OverLimit: n.GetOverLimit(), Down: n.GetDown(), HoldMS: n.GetHoldMs(), Families: []familyRow{}, Sent: n.GetUpdatesSent(), Received: n.GetUpdatesReceived(),
	}
	for _, f := range n.GetFamilies() {
		r.Families = append(r.Families, familyRow{f.GetName(), f.GetAgreed(), f.GetReceived()})
	}
	return r
}

// neighborTable has a line for each family, as each has its numbers.
func neighborTable(rows []neighborRow) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"ROUTER", "NEIGHBOR", "AS", "STATE", "SINCE", "FAMILY", "RECEIVED", "NOTE"}}
	for _, r := range rows {
		var notes []string
		if r.Restarting {
			notes = append(notes, "restarts, its paths are kept")
		}
		if r.OverLimit {
			notes = append(notes, "closed: more than max_prefixes")
		}
		if r.Down {
			notes = append(notes, "out: BFD has found it gone")
		}
		if r.Flaps > 0 {
			notes = append(notes, fmt.Sprintf("%d flaps", r.Flaps))
		}
		head := []string{r.Router, r.Neighbor, strconv.FormatUint(uint64(r.AS), 10), r.State, since(r.SinceMS)}
		note := orDash(strings.Join(notes, ", "))
		if len(r.Families) == 0 {
			table.Rows = append(table.Rows, append(head, "-", "-", note))
		}
		for _, f := range r.Families {
			text := note
			if r.State == "established" && !f.Agreed {
				text = "the neighbor does not have this family"
			}
			table.Rows = append(table.Rows, append(append([]string{}, head...), f.Family, strconv.FormatUint(f.Received, 10), text))
		}
	}
	return table
}

// since is how long something has been so, in one cell.
func since(ms int64) string {
	if ms < 0 {
		return "-"
	}
	return (time.Duration(ms) * time.Millisecond).Round(time.Second).String()
}
