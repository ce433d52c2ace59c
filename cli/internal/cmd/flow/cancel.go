package flow

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/live"
	"github.com/manycast/manycast/cli/internal/pool"
)

func newCancel(f *cmdutil.Factory) *cobra.Command {
	o := options{factory: f}
	cmd := &cobra.Command{
		Use:   "cancel [SERVER] --service SERVICE",
		Short: "Stop the handing over of connections",
		Long: `Stop the handing over of a service's connections, at the server that gives them away, or at all. Those whose state was sent go. The others stay
where they are and go by what comes next in the service's handover; users are whose they are by the allocation.`,
		Example: "  manycast flow cancel --service web\n  manycast flow cancel s1 --service web",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.server = args[0]
			}
			return o.cancel(cmd.Context())
		},
		ValidArgsFunction: pool.CompleteServerNames(f),
	}
	o.serviceFlag(cmd)
	_ = cmd.MarkFlagRequired("service") // the flag is there
	return cmd
}

// cancelled is what a server stopped, as `-o json` writes it.
type cancelled struct {
	Server string `json:"server"`
	Stayed uint64 `json:"stayed"` // connections
}

func (o *options) cancel(ctx context.Context) error {
	s, _, servers, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	all := []cancelled{}
	if err := o.each(servers, func(server string) error {
		stayed, err := live.Cancel(ctx, s, server, o.service)
		if err == nil {
			all = append(all, cancelled{server, stayed})
		}
		return err
	}); err != nil {
		return err
	}
	table := cmdutil.Table{Header: []string{"SERVER", "STAYED"}}
	for _, c := range all {
		table.Rows = append(table.Rows, []string{c.Server, count(c.Stayed)})
	}
	return o.factory.Print(all, table)
}
