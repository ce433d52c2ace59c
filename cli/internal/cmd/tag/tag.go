// Package tag is `manycast tag`: what label switching routers have agreed on, and the ways of packets through them.
package tag

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// options say whom to ask: a router by its name, all routers, or the one behind a socket on this machine.
type options struct {
	factory *cmdutil.Factory
	socket  string
	router  string
}

// New returns `manycast tag`.
func New(f *cmdutil.Factory) *cobra.Command {
	o := &options{factory: f}
	cmd := &cobra.Command{
		Use:   "tag",
		Short: "Show the label switching routers' neighbors, labels and trees",
		Long: `Show the label switching routers' neighbors, labels and trees.

Routers are asked over the bus: one by its name, or all. Without a bus, --socket asks the tdpd of this machine.`,
	}
	o.socketFlag(cmd)
	cmd.AddCommand(newNeighbors(o), newBindings(o), newTable(o), newFEC(o), newTrees(o), newTrace(o), newUsers(o), newClear(o))
	return cmd
}

func (o *options) socketFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&o.socket, "socket", "", "ask the tdpd behind this status socket, <state_dir>/status.sock, not the bus")
}

// routerFlag is for commands whose argument is something else.
func (o *options) routerFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.router, "router", "", "ask this router alone")
	_ = cmd.RegisterFlagCompletionFunc("router", o.completeRouters) // the flag is there
}

// verb makes a command that shows something of one router or of all; show is called for each.
func (o *options) verb(use, short string, run func(context.Context, way, []*tdpdv1.Answer) (any, cmdutil.Table, error)) *cobra.Command {
	cmd := o.command(use+" [ROUTER]", short, run)
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.ValidArgsFunction = o.completeFirstRouter
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			o.router = args[0]
		}
		return inner(cmd, args)
	}
	return cmd
}

// command makes one that shows what run makes of the status of each router that is asked.
func (o *options) command(use, short string, run func(context.Context, way, []*tdpdv1.Answer) (any, cmdutil.Table, error)) *cobra.Command {
	return o.asking(use, short, func(ctx context.Context, w way, all []*tdpdv1.Answer) error {
		value, table, err := run(ctx, w, all)
		if err != nil {
			return err
		}
		return o.factory.Print(value, table)
	})
}

// asking makes one that is run with the status of each router that is asked.
func (o *options) asking(use, short string, run func(context.Context, way, []*tdpdv1.Answer) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := o.open(cmd.Context())
			if err != nil {
				return err
			}
			defer w.Close()
			all, err := o.statuses(cmd.Context(), w)
			if err != nil {
				return err
			}
			return run(cmd.Context(), w, all)
		},
	}
}

// labelText is a label in one cell; nil: there is none.
func labelText(l *uint32) string {
	if l == nil {
		return "-"
	}
	switch *l {
	case 0:
		return "exp-null"
	case 2:
		return "exp-null6"
	case 3:
		return "imp-null"
	}
	return strconv.FormatUint(uint64(*l), 10)
}

// since is how long something has been so, in one cell.
func since(ms int64) string {
	if ms < 0 {
		return "-"
	}
	return (time.Duration(ms) * time.Millisecond).Round(time.Second).String()
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// count is a number in one cell.
func count[T ~uint32 | ~uint64 | ~int](n T) string { return fmt.Sprint(n) }
