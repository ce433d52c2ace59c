package server

import (
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func newUndrain(f *cmdutil.Factory) *cobra.Command {
	o := wish{factory: f, change: func(p *allocv1.Operator) { p.Drained = false }}
	cmd := &cobra.Command{
		Use:               "undrain SERVICE/NAME | NAME",
		Short:             "Give a drained server its share again",
		Example:           "  manycast server undrain web/s2 --wait",
		Args:              cobra.ExactArgs(1),
		RunE:              o.runE,
		ValidArgsFunction: pool.CompleteServers(f),
	}
	o.flags(cmd)
	return cmd
}
