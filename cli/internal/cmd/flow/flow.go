// Package flow is `manycast flow`: live connections, where they are and where they go.
package flow

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/live"
	"github.com/manycast/manycast/cli/internal/pool"
)

// New returns `manycast flow`.
func New(f *cmdutil.Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "flow",
		Aliases: []string{"flows"},
		Short:   "Live connections: which server has them, and where they go",
		Long: `Live connections: which server has them, and where they go. Servers' agents are asked over the bus.

A connection is the server's own, kept (its user is another server's by now), moving (being given to another server), or held (coming from
another server: its packets wait for it).`,
	}
	cmd.AddCommand(newList(f), newShow(f), newStatus(f), newMove(f), newCancel(f))
	return cmd
}

// options say whom to ask.
type options struct {
	factory *cmdutil.Factory
	service string
	server  string
}

func (o *options) serviceFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.service, "service", "", "of this service alone")
	_ = cmd.RegisterFlagCompletionFunc("service", noArgs(pool.CompleteServices(o.factory))) // the flag is there
}

func (o *options) serverFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.server, "server", "", "ask this server alone")
	_ = cmd.RegisterFlagCompletionFunc("server", noArgs(pool.CompleteServerNames(o.factory))) // the flag is there
}

// noArgs completes a flag, whatever arguments there are.
func noArgs(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return complete(cmd, nil, word)
	}
}

// open connects, and finds out whom to ask.
func (o *options) open(ctx context.Context) (*pool.Store, *pool.Snapshot, []string, error) {
	s, err := pool.Open(ctx, o.factory)
	if err != nil {
		return nil, nil, nil, err
	}
	snap, err := s.Load(ctx)
	var servers []string
	if err == nil {
		servers, err = o.servers(snap)
	}
	if err != nil {
		s.Close()
		return nil, nil, nil, err
	}
	return s, snap, servers, nil
}

func (o *options) servers(snap *pool.Snapshot) ([]string, error) {
	if o.server == "" {
		return live.Servers(snap, o.service)
	}
	if o.service != "" {
		if _, err := snap.Service(o.service); err != nil {
			return nil, err
		}
	}
	found, err := snap.Find(o.server)
	if err != nil {
		return nil, err
	}
	return []string{found[0].Name}, nil
}

// each asks servers one after the other. One that does not answer is told of and left out, unless it is the only one.
func (o *options) each(servers []string, ask func(server string) error) error {
	var failed []error
	for _, server := range servers {
		if err := ask(server); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == len(servers) {
		return errors.Join(failed...)
	}
	for _, err := range failed {
		fmt.Fprintf(o.factory.Err, "manycast: warning: %v\n", err)
	}
	return nil
}

// find asks servers for connections, and returns them in order; all is how many there are.
func (o *options) find(ctx context.Context, b live.Bus, servers []string, q live.Query) (flows []live.Flow, all uint64, err error) {
	flows = []live.Flow{}
	err = o.each(servers, func(server string) error {
		found, n, err := live.List(ctx, b, server, q)
		flows, all = append(flows, found...), all+n
		return err
	})
	sortFlows(flows)
	return flows, all, err
}

// table shows connections.
func table(flows []live.Flow) cmdutil.Table {
	t := cmdutil.Table{Header: header()}
	for _, f := range flows {
		t.Rows = append(t.Rows, columns(f))
	}
	return t
}

func header() []string {
	return []string{"SERVER", "SERVICE", "USER", "VIP", "STATE", "OWNER", "UNTIL", "PEER", "STEP"}
}

func columns(f live.Flow) []string {
	step := f.Step
	if step != "" {
		step += " " + (time.Duration(f.StepMS) * time.Millisecond).String()
	}
	return []string{f.Server, f.Service, f.User.String(), f.VIP.String(), f.State, dash(f.Owner), dash(f.Until), dash(f.Peer), dash(step)}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }
