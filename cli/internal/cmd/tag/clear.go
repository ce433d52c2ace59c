package tag

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

type clearedRow struct {
	Router   string `json:"router"`
	Neighbor string `json:"neighbor"`
	Result   string `json:"result"`
}

func newClear(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "clear", Short: "End sessions, which may come back at once"}
	id := ""
	neighbor := o.command("neighbor ID", "End a router's session with a neighbor", func(ctx context.Context, w way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
		router, err := whoHas(all, id)
		if err != nil {
			return nil, cmdutil.Table{}, err
		}
		answer, err := w.One(ctx, router, &tdpdv1.Request{About: &tdpdv1.Request_Clear{Clear: &tdpdv1.ClearRequest{Neighbor: id}}})
		if err != nil {
			return nil, cmdutil.Table{}, err
		}
		r := clearedRow{answer.GetRouter(), answer.GetClear().GetNeighbor(), "cleared"}
		return r, cmdutil.Table{Header: []string{"ROUTER", "NEIGHBOR", "RESULT"}, Rows: [][]string{{r.Router, r.Neighbor, r.Result}}}, nil
	})
	neighbor.Long = `End a router's session with a neighbor, by its router id. Where several routers have that neighbor, --router says whose session.
The labels that it has told are forgotten at both ends, and packets go without until the session is back.`
	neighbor.Args = cobra.ExactArgs(1)
	neighbor.ValidArgsFunction = o.completeNeighbors
	o.routerFlag(neighbor)
	inner := neighbor.RunE
	neighbor.RunE = func(cmd *cobra.Command, args []string) error {
		id = strings.TrimSuffix(args[0], ":0")
		return inner(cmd, args)
	}
	cmd.AddCommand(neighbor)
	return cmd
}

// whoHas is the one router that has the neighbor.
func whoHas(all []*tdpdv1.Answer, id string) (string, error) {
	var have []string
	for _, answer := range all {
		for _, n := range answer.GetStatus().GetNeighbors() {
			if n.GetId() == id+":0" {
				have = append(have, answer.GetRouter())
			}
		}
	}
	switch len(have) {
	case 0:
		return "", fmt.Errorf("no router that was asked has a neighbor %s: manycast tag neighbors shows who has which", id)
	case 1:
		return have[0], nil
	}
	return "", fmt.Errorf("neighbor %s is one of %s: name the router whose session is to end with --router", id, strings.Join(have, ", "))
}
