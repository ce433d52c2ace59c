// Package cmd holds the commands of `manycast`: one package a noun, one file a verb.
package cmd

import (
	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmd/allocation"
	"github.com/manycast/manycast/cli/internal/cmd/bgp"
	"github.com/manycast/manycast/cli/internal/cmd/bus"
	"github.com/manycast/manycast/cli/internal/cmd/connect"
	"github.com/manycast/manycast/cli/internal/cmd/control"
	"github.com/manycast/manycast/cli/internal/cmd/director"
	"github.com/manycast/manycast/cli/internal/cmd/flow"
	"github.com/manycast/manycast/cli/internal/cmd/group"
	"github.com/manycast/manycast/cli/internal/cmd/igmp"
	"github.com/manycast/manycast/cli/internal/cmd/key"
	"github.com/manycast/manycast/cli/internal/cmd/lab"
	"github.com/manycast/manycast/cli/internal/cmd/server"
	"github.com/manycast/manycast/cli/internal/cmd/service"
	"github.com/manycast/manycast/cli/internal/cmd/tag"
	"github.com/manycast/manycast/cli/internal/cmdutil"
)

// New returns the whole command tree.
func New(f *cmdutil.Factory) *cobra.Command {
	root := &cobra.Command{
		Use:           "manycast",
		Short:         "One published address, many servers",
		Long:          "Operate a pool of servers behind one published address: services, servers, directors, allocations, live connections, groups, keys, labels, BGP, the bus and the lab.",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return f.Check()
		},
	}
	root.SetIn(f.In)
	root.SetOut(f.Out)
	root.SetErr(f.Err)
	f.Flags(root)
	root.AddCommand(service.New(f), server.New(f), director.New(f), allocation.New(f), flow.New(f), group.New(f), key.New(f), bus.New(f), igmp.New(f), control.New(f), tag.New(f),
		tag.NewShow(f), bgp.New(f), lab.New(f), connect.New(f))
	return root
}
