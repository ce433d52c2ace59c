package server

import (
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func newDrain(f *cmdutil.Factory) *cobra.Command {
	o := wish{factory: f, change: func(p *allocv1.Operator) { p.Drained = true }}
	o.after = o.leaveHosts
	cmd := &cobra.Command{
		Use:   "drain SERVICE/NAME | NAME",
		Short: "Give a server's users to the others, for maintenance",
		Long: `Give a server's users to the others: it owns nothing from the next epoch on, until undrained. Its agent goes on running and
the wish outlives agents, directors and the bus' restart. NAME alone drains the server in all its services.

Where a tdpd on the server's own host announces its route by BGP (bgp.announce.server), --wait goes on: when nobody is left, the route is told so
that nobody prefers it, then withdrawn, and the command ends when neighbors had time for both.`,
		Example:           "  manycast server drain web/s2 --wait\n  manycast server drain s2",
		Args:              cobra.ExactArgs(1),
		RunE:              o.runE,
		ValidArgsFunction: pool.CompleteServers(f),
	}
	o.flags(cmd)
	return cmd
}
