// Package service is `manycast service`.
package service

import (
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
)

// New returns `manycast service`.
func New(f *cmdutil.Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "service",
		Aliases: []string{"services"},
		Short:   "Services: names and published addresses, each served by a pool of servers",
	}
	cmd.AddCommand(newCreate(f), newApply(f), newList(f), newShow(f), newDelete(f), newWhy(f))
	return cmd
}
