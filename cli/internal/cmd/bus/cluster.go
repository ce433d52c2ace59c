package bus

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/bus"
)

// newInit returns `manycast bus init`: the buckets on a NATS cluster that `manycast bus` did not start.
func newInit(f *cmdutil.Factory) *cobra.Command {
	replicas := 0
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the buckets on a NATS cluster",
		Long: `Make the buckets that are missing on the NATS cluster at --bus; what is there stays. It needs the admin's credentials.

With --replicas N each entry is kept by N of the cluster's servers, in the buckets that are there, too. ` + "`manycast bus`" + ` makes its
buckets itself.`,
		Example: "  manycast bus init --bus nats://nats.example.net:4222 --replicas 3",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("replicas") && (replicas < 1 || replicas > 5) {
				return fmt.Errorf("--replicas %d: want 1 to 5", replicas)
			}
			c, err := f.Bus(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), f.Timeout)
			defer cancel()
			made, err := c.MakeBuckets(ctx, replicas)
			if err != nil {
				return err
			}
			type row struct {
				Bucket string `json:"bucket"`
				Made   bool   `json:"made"`
			}
			rows, table := []row{}, cmdutil.Table{Header: []string{"BUCKET", "RESULT"}}
			for _, name := range bus.Buckets() {
				result := "is there"
				if slices.Contains(made, name) {
					result = "made"
				}
				rows = append(rows, row{name, result == "made"})
				table.Rows = append(table.Rows, []string{name, result})
			}
			return f.Print(rows, table)
		},
	}
	cmd.Flags().IntVar(&replicas, "replicas", 0, "servers that keep each entry, 1 to 5 (default 1 for new buckets)")
	return cmd
}

// newNATSConfig returns `manycast bus nats-config`: the users that a NATS cluster needs.
func newNATSConfig(f *cmdutil.Factory) *cobra.Command {
	dir := cmdutil.DefaultDataDir
	cmd := &cobra.Command{
		Use:   "nats-config",
		Short: "Print the account that a NATS cluster needs, and make its credentials",
		Long: `Print what a NATS cluster's configuration needs for the suite: an account's JetStream, and one user a role with what it may do.

The roles' credentials are in DIR/creds; those that are missing are made. The cluster gets their public keys alone.`,
		Example: "  manycast bus nats-config --data /etc/manycast > manycast.conf",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			text, err := bus.NATSConfig(dir)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(f.Out, text)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "data", dir, "directory with the credentials, in creds/")
	return cmd
}

// newCredentials returns `manycast bus credentials`: what the servers of a cluster have in common.
func newCredentials(f *cmdutil.Factory) *cobra.Command {
	dir := cmdutil.DefaultDataDir
	cmd := &cobra.Command{
		Use:   "credentials",
		Short: "Make the credentials that are missing, to be copied to all servers of a cluster",
		Long: `Make the credentials that are missing in DIR/creds: one file a role, and the secret by which the servers of a cluster know each
other. Make them on one machine before the first start and copy DIR/creds to the others.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			made, err := bus.MakeCredentials(dir)
			if err != nil {
				return err
			}
			type row struct {
				File string `json:"file"`
			}
			rows, table := []row{}, cmdutil.Table{Header: []string{"MADE"}}
			for _, file := range made {
				rows = append(rows, row{file})
				table.Rows = append(table.Rows, []string{file})
			}
			return f.Print(rows, table)
		},
	}
	cmd.Flags().StringVar(&dir, "data", dir, "data directory of the bus")
	return cmd
}
