// Package server is `manycast server`.
package server

import (
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
)

// New returns `manycast server`.
func New(f *cmdutil.Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "server",
		Aliases: []string{"servers"},
		Short:   "Servers: the members of the services' pools",
	}
	cmd.AddCommand(newList(f), newDrain(f), newUndrain(f), newWeight(f))
	return cmd
}
