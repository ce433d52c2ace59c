package server

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// wish changes what the operator wants of servers. The verbs differ in change alone.
type wish struct {
	factory *cmdutil.Factory
	target  string // SERVICE/NAME, or NAME in all its services
	wait    bool
	change  func(*allocv1.Operator)
	// before and after are done with the servers' own hosts; nil: nothing is. After is with wait alone, when they have no users any more.
	before func(context.Context, []pool.Server) error
	after  func(context.Context, *pool.Snapshot, []pool.Server) error
}

func (o *wish) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until the allocation took it in, at most for --timeout")
}

func (o *wish) runE(cmd *cobra.Command, args []string) error {
	o.target = args[0]
	return o.run(cmd.Context())
}

// outcome is what became of a wish.
type outcome struct {
	Service string `json:"service"`
	Name    string `json:"name"`
	Drained bool   `json:"drained"`
	Weight  int    `json:"weight"`
	Changed bool   `json:"changed"`
	Taken   bool   `json:"taken_in"`
	Slots   int    `json:"slots"`
	Epoch   string `json:"epoch,omitempty"`
}

func (o *wish) run(ctx context.Context) error {
	s, err := pool.Open(ctx, o.factory)
	if err != nil {
		return err
	}
	defer s.Close()
	snap, err := s.Load(ctx)
	if err != nil {
		return err
	}
	servers, err := snap.Find(o.target)
	if err != nil {
		return err
	}
	if o.before != nil {
		if err := o.before(ctx, servers); err != nil {
			return err
		}
	}
	changed := map[string]bool{}
	for _, m := range servers {
		if changed[m.Service], err = o.write(ctx, s, m.Service+"."+m.Name); err != nil {
			return err
		}
	}
	var late error
	if o.wait {
		_, late = s.Wait(ctx, func(snap *pool.Snapshot) bool { return settled(snap, servers) })
	}
	if late != nil && !errors.Is(late, pool.ErrNotYet) {
		return late
	}
	if snap, err = s.Load(ctx); err != nil {
		return err
	}
	if err := o.print(snap, servers, changed); err != nil || !o.wait {
		return err
	}
	if !settled(snap, servers) {
		return late
	}
	if err := undrainable(snap, servers); err != nil || o.after == nil {
		return err
	}
	return o.after(ctx, snap, servers)
}

// undrainable returns an error for drained servers that keep their users: nobody else can take them.
func undrainable(snap *pool.Snapshot, servers []pool.Server) error {
	var errs []error
	for _, old := range servers {
		svc, err := snap.Service(old.Service)
		if err != nil {
			continue // deleted meanwhile
		}
		m, _ := svc.Server(old.Name)
		if share := svc.Share(m.Name); m.Drained && share > 0 {
			errs = append(errs, fmt.Errorf("%s/%s still has %s of the users: no other server can take them; see `manycast server list %s`",
				m.Service, m.Name, pool.Percent(share), m.Service))
		}
	}
	return errors.Join(errs...)
}

// write changes an entry of the bucket; another operator's change at the same time is not lost.
func (o *wish) write(ctx context.Context, s *pool.Store, key string) (changed bool, err error) {
	bucket := s.Bucket(bus.BucketOperator)
	for range 10 {
		var before allocv1.Operator
		e, err := bucket.Get(ctx, key)
		if err == nil {
			err = proto.Unmarshal(e.Value, &before)
		}
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return false, err
		}
		after := proto.CloneOf(&before)
		o.change(after)
		if proto.Equal(&before, after) {
			return false, nil
		}
		if proto.Size(after) == 0 {
			err = bucket.DeleteAt(ctx, key, e.Revision)
		} else {
			err = s.Write(ctx, bus.BucketOperator, key, after, e.Revision)
		}
		if !errors.Is(err, bus.ErrConflict) {
			return err == nil, err
		}
	}
	return false, fmt.Errorf("operator/%s: %w again and again: who else is at it?", key, bus.ErrConflict)
}

// settled reports whether the allocations of the servers' services are what they should be.
func settled(snap *pool.Snapshot, servers []pool.Server) bool {
	for _, m := range servers {
		if svc, err := snap.Service(m.Service); err == nil && !svc.Settled() {
			return false
		}
	}
	return true
}

func (o *wish) print(snap *pool.Snapshot, servers []pool.Server, changed map[string]bool) error {
	outcomes := []outcome{}
	table := cmdutil.Table{Header: []string{"SERVICE", "NAME", "DRAINED", "WEIGHT", "SLOTS", "RESULT"}}
	for _, old := range servers {
		svc, err := snap.Service(old.Service)
		if err != nil {
			continue // deleted meanwhile
		}
		m, _ := svc.Server(old.Name)
		r := outcome{
			Service: m.Service, Name: m.Name, Drained: m.Drained, Weight: m.Weight, Changed: changed[m.Service],
			Slots: svc.Committed.Counts()[m.Name],
		}
		if !svc.Committed.Zero() {
			r.Epoch = svc.Committed.Epoch.String()
		}
		warning := caveat(svc, m)
		r.Taken = warning == "" && svc.Settled()
		if warning != "" {
			fmt.Fprintf(o.factory.Err, "manycast: warning: %s/%s: %s\n", m.Service, m.Name, warning)
		}
		outcomes = append(outcomes, r)
		table.Rows = append(table.Rows, []string{
			m.Service, m.Name, pool.YesNo(m.Drained), strconv.Itoa(m.Weight), strconv.Itoa(r.Slots), r.result(),
		})
	}
	return o.factory.Print(outcomes, table)
}

func (r outcome) result() string {
	word := "unchanged"
	if r.Changed {
		word = "changed"
	}
	if r.Taken && r.Epoch != "" {
		return word + ", in epoch " + r.Epoch
	}
	return word + ", not taken in yet"
}

// caveat says why what the operator wants has no effect now.
func caveat(svc *pool.Service, m pool.Server) string {
	_, _, err := svc.Next()
	switch {
	case errors.Is(err, pool.ErrStatic):
		return err.Error() + ": drains and weights have no effect"
	case errors.Is(err, alloc.ErrNoServer):
		return err.Error() + ": the last allocation stays"
	case m.Health() != "healthy" && !m.Drained:
		return "it is " + m.Health() + ": it gets users again when it is healthy"
	case m.Overridden && svc.Spec.Policy == alloc.Equal:
		return "the service's policy is equal, which counts no weights: make it weighted with `manycast service apply`"
	}
	return ""
}
