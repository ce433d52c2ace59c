package lab

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/lab/scenario"
)

func newWatch(f *cmdutil.Factory) *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use: "watch", Hidden: true, Short: "Tell each new allocation and move of a service, one JSON object a line", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			c, err := f.Bus(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			return scenario.Watch(ctx, c, service, f.Now, f.Out)
		},
	}
	cmd.Flags().StringVar(&service, "service", "", "the service")
	return cmd
}
