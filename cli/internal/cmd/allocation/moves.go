package allocation

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/alloc"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

type movesOptions struct {
	factory  *cmdutil.Factory
	services []string
	last     int
}

func newMoves(f *cmdutil.Factory) *cobra.Command {
	o := movesOptions{factory: f}
	cmd := &cobra.Command{
		Use:   "moves [SERVICE]",
		Short: "Show the last moves",
		Long: `Show the last moves, oldest first: what fraction of the source space moved, the least that the new shares allowed, connections
closed, the time from the announcement to the last agent's answer, and the servers that did not answer.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.services = args
			return o.run(cmd.Context())
		},
		ValidArgsFunction: pool.CompleteServices(f),
	}
	cmd.Flags().IntVar(&o.last, "last", 10, "how many of each service; the bus keeps 64")
	return cmd
}

// move is one as `-o json` writes it.
type move struct {
	Service     string    `json:"service"`
	Epoch       string    `json:"epoch"`
	At          time.Time `json:"at"`
	Moved       float64   `json:"fraction_moved"`
	Needed      float64   `json:"fraction_needed"`
	Connections uint32    `json:"connections_affected"`
	Ms          float64   `json:"ms"`
	Reason      string    `json:"reason"`
	Missing     []string  `json:"missing"`
}

func (o movesOptions) run(ctx context.Context) error {
	if o.last < 1 {
		return fmt.Errorf("--last %d: want 1 or more", o.last)
	}
	s, err := pool.Open(ctx, o.factory)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	services, err := snap.Select(o.services...)
	if err != nil {
		return err
	}
	all := []move{}
	for _, svc := range services {
		moves, err := s.Moves(ctx, svc.Spec.Name)
		if err != nil {
			return err
		}
		for _, p := range moves[max(len(moves)-o.last, 0):] {
			all = append(all, moveOf(p))
		}
	}
	return o.factory.Print(all, movesTable(all))
}

func moveOf(p *allocv1.Move) move {
	return move{
		Service: p.GetService(), Epoch: alloc.EpochFromProto(p.GetEpoch()).String(), At: time.Unix(0, p.GetAtUnixNano()).UTC(),
		Moved: p.GetFractionMoved(), Needed: p.GetFractionNeeded(), Connections: p.GetConnectionsAffected(), Ms: p.GetMs(),
		Reason: p.GetReason(), Missing: append([]string{}, p.GetMissing()...),
	}
}

func movesTable(all []move) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"AT", "SERVICE", "EPOCH", "MOVED", "NEEDED", "CLOSED", "MS", "MISSING", "REASON"}}
	for _, m := range all {
		missing := "-"
		if len(m.Missing) > 0 {
			missing = strings.Join(m.Missing, ",")
		}
		table.Rows = append(table.Rows, []string{
			m.At.Format(time.DateTime), m.Service, m.Epoch, pool.Percent(m.Moved), pool.Percent(m.Needed),
			strconv.FormatUint(uint64(m.Connections), 10), strconv.FormatFloat(m.Ms, 'f', 0, 64), missing, m.Reason,
		})
	}
	return table
}
