package service

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/bus"
)

func newDelete(f *cmdutil.Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a service: its users are not served any more",
		Long: `Delete a service. Directors and agents stop serving it at once, and what the operator wanted of its servers (drained, weights)
is forgotten. The last allocation stays on the bus, so that epochs go on where they were when a service of that name comes back.`,
		Args:              cobra.ExactArgs(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return remove(cmd.Context(), f, args[0]) },
		ValidArgsFunction: pool.CompleteServices(f),
	}
}

func remove(ctx context.Context, f *cmdutil.Factory, name string) error {
	s, err := pool.Open(ctx, f)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	svc, err := snap.Service(name)
	if err != nil {
		if _, gone := s.Bucket(bus.BucketServices).Get(ctx, name); gone != nil {
			return err
		}
		svc = &pool.Service{} // one that Load left out as damaged
	}
	if err := s.Bucket(bus.BucketServices).Delete(ctx, name); err != nil {
		return err
	}
	for _, m := range svc.Servers {
		if m.Wish == 0 {
			continue
		}
		if err := s.Bucket(bus.BucketOperator).Delete(ctx, name+"."+m.Name); err != nil {
			return err
		}
	}
	return printResults(f, []result{{Name: name, Result: deleted}})
}
