package flow

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/live"
)

type listOptions struct {
	options
	query  live.Query
	limit  int
	client bool
	socket string
}

func newList(f *cmdutil.Factory) *cobra.Command {
	o := listOptions{options: options{factory: f}}
	cmd := &cobra.Command{
		Use:   "list [USER]",
		Short: "List live connections",
		Long: `List live connections, of all users or of one: an address, an address and port, or a prefix. OWNER is whose the user is by the
allocation that the server executes; UNTIL the last epoch in which the user was the server's own.

With --client they are this host's own, as its lbd client knows them: each connection that can move, with its tag, the beginning of its cookie, where
its packets go, and how often it has moved. No bus is needed for that.`,
		Example: "  manycast flow list --service web --state kept\n  manycast flow list 203.0.113.0/24 -o json --limit 0\n  manycast flow list --client",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.query.User = args[0]
			}
			if o.client {
				return o.ofClient(cmd.Context())
			}
			return o.run(cmd.Context())
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.serviceFlag(cmd)
	o.serverFlag(cmd)
	cmd.Flags().StringVar(&o.query.State, "state", "all", "those that are moving, kept, own or all")
	cmd.Flags().IntVar(&o.limit, "limit", 1000, "list so many at most; 0: all")
	cmd.Flags().BoolVar(&o.client, "client", false, "this host's own connections that can move; its lbd client is asked")
	cmd.Flags().StringVar(&o.socket, "client-socket", "", "status socket of lbd client; without it those of the unit and of manycast connect")
	for _, of := range []string{"server", "state"} {
		cmd.MarkFlagsMutuallyExclusive("client", of)
	}
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(live.StateNames(), cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return cmd
}

func (o listOptions) run(ctx context.Context) error {
	s, _, servers, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	o.query.Service, o.query.Limit = o.service, o.limit
	flows, all, err := o.find(ctx, s, servers, o.query)
	if err != nil {
		return err
	}
	if o.limit > 0 && len(flows) > o.limit {
		flows = flows[:o.limit]
	}
	if err := o.factory.Print(flows, table(flows)); err != nil {
		return err
	}
	if n := uint64(len(flows)); n < all {
		fmt.Fprintf(o.factory.Err, "manycast: %d of %d connections; --limit 0 lists all\n", n, all)
	}
	return nil
}

func sortFlows(flows []live.Flow) {
	slices.SortFunc(flows, func(a, b live.Flow) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), a.User.Compare(b.User), a.VIP.Compare(b.VIP), cmp.Compare(a.Server, b.Server))
	})
}
