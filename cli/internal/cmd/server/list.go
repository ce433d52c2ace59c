package server

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
)

func newList(f *cmdutil.Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "list [SERVICE]",
		Short: "List the servers of all services, or of one",
		Long: `List the servers: weight (* set by the operator in place of the agent's own), health, whether drained, the share of the
source space that they own now, and when their agent renewed its registration.

healthy    the agent renews, its application answers
unhealthy  the agent renews, but its application does not answer or it lacks the group's key: owns nothing
silent     the agent did not renew for 2.5 s: dead, owns nothing
dampened   healthy, but it died again and again: owns nothing until the time given (UTC), unless there is nobody else
absent     not registered, known from the service or the last allocation alone
unknown    of a static service: its agent does not register`,
		Args:              cobra.MaximumNArgs(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return list(cmd.Context(), f, args) },
		ValidArgsFunction: pool.CompleteServices(f),
	}
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
	age        time.Duration
	overridden bool
}

func list(ctx context.Context, f *cmdutil.Factory, names []string) error {
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
	for _, r := range rows {
		table.Rows = append(table.Rows, r.columns())
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

func (r row) columns() []string {
	weight, seen, address := strconv.Itoa(r.Weight), "never", "-"
	if r.overridden {
		weight += "*"
	}
	if r.LastSeen != nil {
		seen = pool.Age(r.age) + " ago"
	}
	if r.Address != "" {
		address = r.Address
	}
	return []string{
		r.Service, r.Name, address, weight, r.Health, pool.YesNo(r.Drained), strconv.Itoa(r.Slots), pool.Percent(r.Share), seen,
	}
}
