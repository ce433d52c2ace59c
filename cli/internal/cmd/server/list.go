package server

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/bus"
)

func newList(f *cmdutil.Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the servers",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return list(cmd.Context(), f) },
	}
}

func list(ctx context.Context, f *cmdutil.Factory) error {
	s, err := pool.Open(ctx, f)
	if err != nil {
		return err
	}
	defer s.Close()
	entries, err := s.Bucket(bus.BucketServers).List(ctx)
	if err != nil {
		return err
	}
	names := []string{}
	table := cmdutil.Table{Header: []string{"NAME"}}
	for _, e := range entries {
		names = append(names, e.Key)
		table.Rows = append(table.Rows, []string{e.Key})
	}
	return f.Print(names, table)
}
