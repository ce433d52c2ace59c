package flow

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/live"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/alloc"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

type statusOptions struct {
	options
	counters bool
}

func newStatus(f *cmdutil.Factory) *cobra.Command {
	o := statusOptions{options: options{factory: f}}
	cmd := &cobra.Command{
		Use:   "status [SERVER]",
		Short: "Show how many connections servers have, and what becomes of those that move",
		Long: `Show how many connections servers have of their own users and of others', and the batches in which they are handed over: what each taker
wants of the users that are its own since an epoch. With --counters, totals per strategy and reason instead; -o json has both, and how large states were that were sent.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.server = args[0]
			}
			return o.run(cmd.Context())
		},
		ValidArgsFunction: pool.CompleteServerNames(f),
	}
	cmd.Flags().BoolVar(&o.counters, "counters", false, "show totals per strategy and reason")
	return cmd
}

type status struct {
	Server   string      `json:"server"`
	Services []ofService `json:"services"`
	Batches  []batch     `json:"batches"`
	Counters []counter   `json:"counters"`
	Sizes    []size      `json:"state_sizes"`
	Largest  uint64      `json:"state_max"` // bytes
}

type ofService struct {
	Name     string   `json:"service"`
	Handover []string `json:"handover"`
	Epoch    string   `json:"epoch,omitempty"`
	Own      uint64   `json:"own"`
	Kept     uint64   `json:"kept"`
}

// batch counts connections, and bytes of their states.
type batch struct {
	Service string `json:"service"`
	Taker   string `json:"taker"`
	Epoch   string `json:"epoch"`
	Wanted  uint64 `json:"wanted"`
	Moving  uint64 `json:"moving"`
	Given   uint64 `json:"given"`
	Stayed  uint64 `json:"stayed"`
	Lost    uint64 `json:"lost"`
	Bytes   uint64 `json:"state_bytes"`
}

type counter struct {
	Strategy string `json:"strategy"`
	Name     string `json:"name"`
	Reason   string `json:"reason,omitempty"`
	Value    uint64 `json:"value"`
}

// size is how many states that were sent had at most so many bytes, and more than the next smaller one has.
type size struct {
	UpTo  uint64 `json:"up_to"`
	Count uint64 `json:"count"`
}

func (o statusOptions) run(ctx context.Context) error {
	s, _, servers, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	all := []status{}
	if err := o.each(servers, func(server string) error {
		p, err := live.Status(ctx, s, server)
		if err == nil {
			all = append(all, statusOf(server, p))
		}
		return err
	}); err != nil {
		return err
	}
	if o.counters {
		return o.factory.Print(all, countersTable(all))
	}
	return o.factory.Print(all, statusTable(all))
}

func statusOf(server string, p *handoverv1.FlowsStatus) status {
	st := status{Server: server, Services: []ofService{}, Batches: []batch{}, Counters: []counter{}, Sizes: []size{}, Largest: p.GetStateMax()}
	for _, v := range p.GetServices() {
		s := ofService{Name: v.GetService(), Handover: append([]string{}, v.GetHandover()...), Own: v.GetOwn(), Kept: v.GetKept()}
		if e := alloc.EpochFromProto(v.GetEpoch()); e.Number != 0 {
			s.Epoch = e.String()
		}
		st.Services = append(st.Services, s)
	}
	for _, b := range p.GetBatches() {
		st.Batches = append(st.Batches, batch{
			b.GetService(), b.GetTaker(), alloc.EpochFromProto(b.GetEpoch()).String(), b.GetWanted(), b.GetMoving(), b.GetGiven(), b.GetStayed(), b.GetLost(), b.GetBytes(),
		})
	}
	for _, c := range p.GetCounters() {
		st.Counters = append(st.Counters, counter{c.GetStrategy(), c.GetName(), c.GetReason(), c.GetValue()})
	}
	for _, v := range p.GetStateSizes() {
		st.Sizes = append(st.Sizes, size{v.GetUpTo(), v.GetCount()})
	}
	slices.SortFunc(st.Counters, func(a, b counter) int {
		return cmp.Or(cmp.Compare(a.Strategy, b.Strategy), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Reason, b.Reason))
	})
	return st
}

// statusTable has a line for each service of a server, and one for each batch of that.
func statusTable(all []status) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"SERVER", "SERVICE", "HANDOVER", "EPOCH", "OWN", "KEPT", "TO", "WANTED", "MOVING", "GIVEN", "STAYED", "LOST"}}
	for _, st := range all {
		for _, v := range st.Services {
			line := []string{st.Server, v.Name, strings.Join(v.Handover, ","), dash(v.Epoch), count(v.Own), count(v.Kept), "-", "-", "-", "-", "-", "-"}
			table.Rows = append(table.Rows, line)
			for _, b := range st.Batches {
				if b.Service == v.Name {
					table.Rows = append(table.Rows, []string{
						st.Server, v.Name, "-", b.Epoch, "-", "-", b.Taker, count(b.Wanted), count(b.Moving), count(b.Given), count(b.Stayed), count(b.Lost),
					})
				}
			}
		}
	}
	return table
}

func countersTable(all []status) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"SERVER", "STRATEGY", "COUNTER", "REASON", "VALUE"}}
	for _, st := range all {
		for _, c := range st.Counters {
			if c.Value > 0 {
				table.Rows = append(table.Rows, []string{st.Server, c.Strategy, c.Name, dash(c.Reason), count(c.Value)})
			}
		}
	}
	return table
}
