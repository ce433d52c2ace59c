package server

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/alloc/policy"
)

func newList(f *cmdutil.Factory) *cobra.Command {
	withLoad := false
	cmd := &cobra.Command{
		Use:   "list [SERVICE]",
		Short: "List the servers of all services, or of one",
		Long: `List the servers: weight (* set by the operator in place of the agent's own), health, whether drained, the share of the
source space that they own now, and when their agent renewed its registration. With --load what they say of their work in place of
addresses and slots: connections, new ones and bytes a second, connections that wait to be accepted, and the load (1 is as much as a
server can bear) as policy load sees it. -o json has all.

healthy    the agent renews, its application answers
unhealthy  the agent renews, but its application does not answer or it lacks the group's key: owns nothing
silent     the agent did not renew for 2.5 s: dead, owns nothing
dampened   healthy, but it died again and again: owns nothing until the time given (UTC), unless there is nobody else
absent     not registered, known from the service or the last allocation alone
unknown    of a static service: its agent does not register`,
		Args:              cobra.MaximumNArgs(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return list(cmd.Context(), f, args, withLoad) },
		ValidArgsFunction: pool.CompleteServices(f),
	}
	cmd.Flags().BoolVar(&withLoad, "load", false, "show loads")
	return cmd
}

type row struct {
	Service    string     `json:"service"`
	Name       string     `json:"name"`
	Address    string     `json:"address,omitempty"`
	Weight     int        `json:"weight"`
	OwnWeight  int        `json:"own_weight"`
	Health     string     `json:"health"`
	Drained    bool       `json:"drained"`
	Slots      int        `json:"slots"`
	Share      float64    `json:"share"`
	LastSeen   *time.Time `json:"last_seen,omitempty"`
	Load       *load      `json:"load,omitempty"`
	age        time.Duration
	overridden bool
}

// load is what a server says of its work.
type load struct {
	Load        float64  `json:"load"` // as policy load sees it
	Connections int      `json:"connections"`
	Accepts     float64  `json:"accepts_per_second"`
	Bytes       float64  `json:"bytes_per_second"`
	CPU         float64  `json:"cpu"`
	Memory      float64  `json:"memory_pressure"`
	Application *float64 `json:"application,omitempty"`
	Queue       int      `json:"queue"`
	Wanted      []string `json:"wanted,omitempty"`
	Hot         []hot    `json:"hot,omitempty"`
}

type hot struct {
	Portion string  `json:"portion"`
	Share   float64 `json:"share"`
}

func loadOf(m pool.Server) *load {
	if m.Load == nil || math.IsNaN(policy.Measure(*m.Load)) {
		return nil
	}
	l := &load{
		Load: policy.Measure(*m.Load), Connections: m.Load.Connections, Accepts: m.Load.Accepts, Bytes: m.Load.Bytes, CPU: m.Load.CPU,
		Memory: m.Load.Memory, Application: m.Load.Application, Queue: m.Load.Queue,
	}
	for _, w := range m.Load.Wanted {
		l.Wanted = append(l.Wanted, w.String())
	}
	for _, h := range m.Load.Hot {
		l.Hot = append(l.Hot, hot{h.Portion.String(), h.Share})
	}
	return l
}

func list(ctx context.Context, f *cmdutil.Factory, names []string, withLoad bool) error {
	s, err := pool.Open(ctx, f)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	rows, err := rowsOf(snap, names)
	if err != nil {
		return err
	}
	table := cmdutil.Table{Header: []string{"SERVICE", "NAME", "ADDRESS", "WEIGHT", "HEALTH", "DRAINED", "SLOTS", "SHARE", "SEEN"}}
	if withLoad {
		table.Header = []string{"SERVICE", "NAME", "HEALTH", "SHARE", "CONNECTIONS", "ACCEPTS/S", "BYTES/S", "QUEUE", "LOAD", "SEEN"}
	}
	for _, r := range rows {
		if withLoad {
			table.Rows = append(table.Rows, r.loadColumns())
		} else {
			table.Rows = append(table.Rows, r.columns())
		}
	}
	if len(names) == 0 {
		for _, m := range snap.Strays {
			fmt.Fprintf(f.Err, "manycast: warning: server %s (%s) serves %q, a service that is not there\n", m.Name, m.Address, m.Service)
		}
	}
	return f.Print(rows, table)
}

func rowsOf(snap *pool.Snapshot, names []string) ([]row, error) {
	services, err := snap.Select(names...)
	if err != nil {
		return nil, err
	}
	rows := []row{}
	for _, svc := range services {
		slots := svc.Committed.Counts()
		for _, m := range svc.Servers {
			r := row{
				Service: m.Service, Name: m.Name, Address: m.Address, Weight: m.Weight, OwnWeight: m.Own, Health: m.Health(),
				Drained: m.Drained, Slots: slots[m.Name], Share: svc.Share(m.Name), age: m.Age, overridden: m.Overridden,
				Load: loadOf(m),
			}
			if m.Registered {
				at := snap.At.Add(-m.Age).UTC().Truncate(time.Millisecond)
				r.LastSeen = &at
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func (r row) seen() string {
	if r.LastSeen == nil {
		return "never"
	}
	return pool.Age(r.age) + " ago"
}

func (r row) loadColumns() []string {
	out := []string{r.Service, r.Name, r.Health, pool.Percent(r.Share), "-", "-", "-", "-", "-", r.seen()}
	if l := r.Load; l != nil {
		copy(out[4:], []string{
			strconv.Itoa(l.Connections), fmt.Sprintf("%.1f", l.Accepts), fmt.Sprintf("%.0f", l.Bytes), strconv.Itoa(l.Queue), fmt.Sprintf("%.2f", l.Load),
		})
	}
	return out
}

func (r row) columns() []string {
	weight, seen, address := strconv.Itoa(r.Weight), r.seen(), "-"
	if r.overridden {
		weight += "*"
	}
	if r.Address != "" {
		address = r.Address
	}
	return []string{
		r.Service, r.Name, address, weight, r.Health, pool.YesNo(r.Drained), strconv.Itoa(r.Slots), pool.Percent(r.Share), seen,
	}
}
