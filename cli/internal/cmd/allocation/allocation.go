// Package allocation is `manycast allocation`.
package allocation

import (
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
)

// New returns `manycast allocation`.
func New(f *cmdutil.Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "allocation",
		Aliases: []string{"allocations"},
		Short:   "Allocations: which server owns which part of the source addresses",
	}
	cmd.AddCommand(newShow(f), newRebalance(f), newMoves(f))
	return cmd
}
