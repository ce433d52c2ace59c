// Package bus is `manycast bus`.
package bus

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/daemon"
)

// New returns `manycast bus`: the embedded bus, until it is told to stop.
func New(f *cmdutil.Factory) *cobra.Command {
	cfg := bus.ServerConfig{}
	level, check := "info", false
	cmd := &cobra.Command{
		Use:   "bus",
		Short: "Run the embedded bus (NATS with JetStream)",
		Long: `Run the embedded bus: one NATS server with JetStream.

At its first start it makes credentials, one file a role, in DIR/creds; give each daemon the file of its role, and nobody else.
Before each start it looks through DIR, and does not serve when something is missing or damaged: it changes nothing then.

With --cluster-listen and --peer it is one of three or five servers that are one bus: each keeps all, and more than half of them have
to be there. They need the same credentials: see credentials. Any other NATS cluster does, too: see nats-config and init.`,
		Example: "  manycast bus --data /var/lib/manycast/bus --listen 127.0.0.1:4222\n" +
			"  manycast bus --listen 10.0.1.1:4222 --cluster-listen 10.0.1.1:6222 --peer 10.0.1.2:6222 --peer 10.0.1.3:6222",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := daemon.Logger(level, f.Err)
			if err != nil {
				return err
			}
			cfg.Log = log
			if check {
				return cfg.Check()
			}
			return daemon.Run(cmd.Context(), log, bus.NewServer(cfg))
		},
	}
	cmd.Flags().StringVar(&cfg.DataDir, "data", cmdutil.DefaultDataDir, "data directory: the store, and credentials in creds/")
	cmd.Flags().StringVar(&cfg.Listen, "listen", "127.0.0.1:4222", "host:port to serve on")
	cmd.Flags().StringVar(&cfg.Cluster.Listen, "cluster-listen", "", "host:port where the other servers of a cluster connect")
	cmd.Flags().StringSliceVar(&cfg.Cluster.Peers, "peer", nil, "cluster-listen of each other server: 2 or 4 of them")
	cmd.Flags().BoolVar(&check, "check", false, "check the options and, of a cluster, its secret, and exit")
	cmd.Flags().StringVar(&level, "log", level, "log level: debug, info, warn or error")
	cmd.AddCommand(newStatus(f), newInit(f), newNATSConfig(f), newCredentials(f))
	return cmd
}

func newStatus(f *cmdutil.Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show whether the bus answers, and what its buckets hold",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.Bus(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			type row struct {
				Bucket string `json:"bucket"`
				Keys   int    `json:"keys"`
			}
			var rows []row
			table := cmdutil.Table{Header: []string{"BUCKET", "KEYS"}}
			for _, name := range bus.Buckets() {
				entries, err := c.Bucket(bus.BucketConfig{Name: name}).List(cmd.Context())
				if err != nil {
					return err
				}
				rows = append(rows, row{name, len(entries)})
				table.Rows = append(table.Rows, []string{name, fmt.Sprint(len(entries))})
			}
			return f.Print(rows, table)
		},
	}
}
