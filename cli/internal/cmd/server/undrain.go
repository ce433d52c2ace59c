package server

import (
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func newUndrain(f *cmdutil.Factory) *cobra.Command {
	o := wish{factory: f, change: func(p *allocv1.Operator) { p.Drained = false }}
	o.before = o.enterHosts
	cmd := &cobra.Command{
		Use:   "undrain SERVICE/NAME | NAME",
		Short: "Give a drained server its share again",
		Long: `Give a drained server its share again. Where a tdpd on its own host has withdrawn its route, that is announced first; with --wait the server
gets users when neighbors have it.`,
		Example:           "  manycast server undrain web/s2 --wait",
		Args:              cobra.ExactArgs(1),
		RunE:              o.runE,
		ValidArgsFunction: pool.CompleteServers(f),
	}
	o.flags(cmd)
	return cmd
}
