// Package control is `manycast control`: the control multicast channel.
package control

import (
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
)

// New returns `manycast control`.
func New(f *cmdutil.Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "control",
		Short: "Show who is on the control channel",
		Long: `Show who is on the control channel, on which servers, routers and directors hear each other's heartbeats.

Keys for it are made with "manycast key create authority" and "manycast key create identity".`,
	}
	cmd.AddCommand(newMembers(f))
	return cmd
}
