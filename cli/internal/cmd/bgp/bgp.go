// Package bgp is `manycast bgp`: what routers tell and hear by BGP.
package bgp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/routers"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// options say whom to ask: a router by its name, all routers, or the one behind a socket on this machine.
type options struct {
	factory *cmdutil.Factory
	socket  string
	router  string
}

// New returns `manycast bgp`.
func New(f *cmdutil.Factory) *cobra.Command {
	o := &options{factory: f}
	cmd := &cobra.Command{
		Use:   "bgp",
		Short: "Show and change what routers tell and hear by BGP",
		Long: `Show and change what routers tell and hear by BGP.

Routers are asked over the bus: one by its name (--router), or all of them. Without a bus, --socket asks the tdpd of this machine.`,
	}
	cmd.PersistentFlags().StringVar(&o.socket, "socket", "", "ask the tdpd behind this status socket, <state_dir>/status.sock, not the bus")
	cmd.PersistentFlags().StringVar(&o.router, "router", "", "ask this router alone")
	_ = cmd.RegisterFlagCompletionFunc("router", o.completeRouters) // the flag is there
	cmd.AddCommand(newNeighbors(o), newRoutes(o), newLabels(o), newFlowSpec(o), newAnnounce(o), newWithdraw(o), newClear(o))
	return cmd
}

// asked is what a router that speaks BGP has answered.
type asked struct {
	router string
	answer *tdpdv1.BGPAnswer
}

// each asks all routers that are meant. Those that do not speak BGP, or not with the neighbor that is named, are left out, unless one was named, or none is left. The error names those that have not
// answered: what the others have is there all the same.
func (o *options) each(ctx context.Context, r *tdpdv1.BGPRequest) ([]asked, error) {
	w, err := routers.Open(ctx, o.factory, o.socket)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	all, failed := routers.Statuses(ctx, w, o.router)
	var out []asked
	var without error
	for _, a := range all {
		answer, err := o.one(ctx, w, a.GetRouter(), r)
		switch {
		case err == nil:
			out = append(out, asked{a.GetRouter(), answer})
		case errors.Is(err, routers.ErrNoBGP), errors.Is(err, routers.ErrNoNeighbor):
			without = errors.Join(without, fmt.Errorf("router %s: %w", a.GetRouter(), err))
		default:
			failed = errors.Join(failed, fmt.Errorf("router %s: %w", a.GetRouter(), err))
		}
	}
	if len(out) == 0 {
		failed = errors.Join(failed, without)
	}
	return out, failed
}

func (o *options) one(ctx context.Context, w routers.Way, router string, r *tdpdv1.BGPRequest) (*tdpdv1.BGPAnswer, error) {
	answer, err := w.One(ctx, router, &tdpdv1.Request{About: &tdpdv1.Request_Bgp{Bgp: r}})
	if err == nil && answer.GetBgp() == nil {
		err = errors.New("it says nothing of BGP: is it of an older release?")
	}
	return answer.GetBgp(), err
}

type doneRow struct {
	Router string `json:"router"`
	About  string `json:"about"`
	Result string `json:"result"`
}

// change has one router do something about something.
func (o *options) change(ctx context.Context, about string, r *tdpdv1.BGPRequest) error {
	w, err := routers.Open(ctx, o.factory, o.socket)
	if err != nil {
		return err
	}
	defer w.Close()
	router, err := o.the(ctx, w)
	if err != nil {
		return err
	}
	answer, err := o.one(ctx, w, router, r)
	if err != nil {
		return err
	}
	row := doneRow{router, about, answer.GetDone().GetWhat()}
	return o.factory.Print(row, cmdutil.Table{Header: []string{"ROUTER", "ABOUT", "RESULT"}, Rows: [][]string{{row.Router, row.About, row.Result}}})
}

// the is the one router that is meant.
func (o *options) the(ctx context.Context, w routers.Way) (string, error) {
	all, err := routers.Statuses(ctx, w, o.router)
	if err != nil {
		return "", err
	}
	if len(all) != 1 {
		return "", fmt.Errorf("%d routers are on the bus: say with --router which one", len(all))
	}
	return all[0].GetRouter(), nil
}

// completionTimeout is how long a shell waits at most.
const completionTimeout = 700 * time.Millisecond

// complete is for a shell, which hears nothing of what fails.
func (o *options) complete(cmd *cobra.Command, r *tdpdv1.BGPRequest, words func(asked) []string) ([]string, cobra.ShellCompDirective) {
	quick, factory := *o, *o.factory
	factory.Timeout, factory.Err = min(factory.Timeout, completionTimeout), io.Discard
	quick.factory = &factory
	all, _ := quick.each(cmd.Context(), r)
	var out []string
	for _, a := range all {
		out = append(out, words(a)...)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func askNeighbors() *tdpdv1.BGPRequest {
	return &tdpdv1.BGPRequest{About: &tdpdv1.BGPRequest_Neighbors{Neighbors: &tdpdv1.BGPNeighborsRequest{}}}
}

func (o *options) completeRouters(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return o.complete(cmd, askNeighbors(), func(a asked) []string { return []string{a.router} })
}

func (o *options) completeNeighbors(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.complete(cmd, askNeighbors(), func(a asked) (out []string) {
		for _, n := range a.answer.GetNeighbors().GetNeighbors() {
			out = append(out, n.GetAddress())
		}
		return out
	})
}

// orDash is a word in one cell.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
