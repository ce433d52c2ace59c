package tag

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// placesMost bounds a trace: routers, each with a label.
const placesMost = 1000

// traceRow is what a router does with the packet.
type traceRow struct {
	From     string   `json:"from"` // where the trace begins
	Hop      int      `json:"hop"`
	Router   string   `json:"router,omitempty"` // none: not on the bus
	RouterID string   `json:"router_id,omitempty"`
	In       *uint32  `json:"in,omitempty"` // none: it comes without a label
	FEC      string   `json:"fec,omitempty"`
	Action   string   `json:"action"` // push, swap, pop, forward, deliver, drop; unknown: the router cannot be asked; loop
	Next     []hopRow `json:"next"`
	Why      string   `json:"why,omitempty"`
}

func newTrace(o *options) *cobra.Command {
	to, from := "", ""
	cmd := o.command("trace ADDRESS", "Follow a packet from router to router, label by label", func(ctx context.Context, w way, all []*tdpdv1.Answer) (any, cmdutil.Table, error) {
		t := newTracer(w, to, all)
		rows, err := t.trace(ctx, from)
		return rows, t.table(rows), err
	})
	cmd.Long = `Follow a packet from router to router, label by label: each says what it does with it. No packet is sent; who is asked are the routers, over
the bus. Of several next hops all are followed.

Without --from it begins at each router that no other one sends packets to that address to. A router that is not on the bus ends it.`
	cmd.Example = "  manycast tag trace 10.0.1.2\n  manycast tag trace 10.0.1.2 --from r1 -o json"
	cmd.Args = cobra.ExactArgs(1)
	cmd.ValidArgsFunction = o.completeServers
	cmd.Flags().StringVar(&from, "from", "", "begin at this router")
	_ = cmd.RegisterFlagCompletionFunc("from", o.completeRouters) // the flag is there
	inner := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := netip.ParseAddr(args[0])
		if err != nil || a.Zone() != "" {
			return fmt.Errorf("%q is no address: want one such as 10.0.1.2", args[0])
		}
		to = a.String()
		return inner(cmd, args)
	}
	return cmd
}

// place is where a packet is.
type place struct {
	router string
	label  uint32
	has    bool // a label
}

// tracer follows a packet.
type tracer struct {
	w     way
	to    string
	order []string          // routers, by name
	names map[string]string // by router id
	ids   map[string]string // by name
	seen  map[place]bool    // false: on the way that is being followed
	rows  []traceRow
}

func newTracer(w way, to string, all []*tdpdv1.Answer) *tracer {
	t := &tracer{w: w, to: to, names: map[string]string{}, ids: map[string]string{}}
	for _, answer := range all {
		name, id := answer.GetRouter(), answer.GetStatus().GetRouterId()
		t.order, t.names[id], t.ids[name] = append(t.order, name), name, id
	}
	return t
}

// trace follows the packet from one router, or from all roots.
func (t *tracer) trace(ctx context.Context, from string) ([]traceRow, error) {
	roots := []string{from}
	if from == "" {
		var err error
		if roots, err = t.roots(ctx); err != nil {
			return nil, err
		}
	} else if _, known := t.ids[from]; !known {
		return nil, fmt.Errorf("router %s does not answer: manycast tag neighbors shows which do", from)
	}
	t.rows = []traceRow{}
	for _, root := range roots {
		t.seen = map[place]bool{}
		if err := t.follow(ctx, root, 1, place{router: root}); err != nil {
			return nil, err
		}
	}
	return t.rows, nil
}

// roots are the routers that nobody sends packets to the address to; where everybody has one before it, all are.
func (t *tracer) roots(ctx context.Context) (roots []string, err error) {
	before := map[string]bool{}
	for _, name := range t.order {
		step, err := t.step(ctx, place{router: name})
		if err != nil {
			return nil, err
		}
		for _, h := range step.GetHops() {
			before[t.names[routerID(h.GetNeighbor())]] = true
		}
	}
	for _, name := range t.order {
		if !before[name] {
			roots = append(roots, name)
		}
	}
	if len(roots) == 0 {
		return t.order, nil
	}
	return roots, nil
}

func routerID(neighbor string) string { return strings.TrimSuffix(neighbor, ":0") }

func (t *tracer) step(ctx context.Context, at place) (*tdpdv1.Step, error) {
	r := &tdpdv1.StepRequest{Address: t.to}
	if at.has {
		r.Label = &at.label
	}
	answer, err := t.w.One(ctx, at.router, &tdpdv1.Request{About: &tdpdv1.Request_Step{Step: r}})
	if err != nil {
		return nil, err
	}
	return answer.GetStep(), nil
}

// follow notes what happens at a place, and goes on to the next ones. A place that has been is not followed again; one on this very
// way is a loop.
func (t *tracer) follow(ctx context.Context, root string, hop int, at place) error {
	row := traceRow{From: root, Hop: hop, Router: at.router, RouterID: t.ids[at.router], Next: []hopRow{}}
	if at.has {
		row.In = &at.label
	}
	if done, been := t.seen[at]; been {
		if !done {
			row.Action, row.Why = "loop", "the packet has been here with this label"
			t.rows = append(t.rows, row)
		}
		return nil
	}
	if len(t.seen) >= placesMost {
		return fmt.Errorf("the trace has come by more than %d routers and labels: begin nearer with --from", placesMost)
	}
	t.seen[at] = false
	defer func() { t.seen[at] = true }()
	step, err := t.step(ctx, at)
	if err != nil {
		return err
	}
	row.FEC, row.Action, row.Next, row.Why = step.GetFec(), step.GetAction(), hopsOf(step.GetHops()), step.GetWhy()
	t.rows = append(t.rows, row)
	for _, h := range row.Next {
		if err := t.goOn(ctx, root, hop+1, h); err != nil {
			return err
		}
	}
	return nil
}

// goOn follows a packet to a next hop, if that is a label switching router.
func (t *tracer) goOn(ctx context.Context, root string, hop int, h hopRow) error {
	if h.Neighbor == "" {
		return nil
	}
	next := place{}
	if h.Label != nil {
		next.label, next.has = *h.Label, true
	}
	id := routerID(h.Neighbor)
	if next.router = t.names[id]; next.router == "" {
		t.rows = append(t.rows, traceRow{From: root, Hop: hop, RouterID: id, In: h.Label, Action: "unknown", Next: []hopRow{}, Why: "it is not one of the routers that answer"})
		return nil
	}
	return t.follow(ctx, root, hop, next)
}

func (t *tracer) table(rows []traceRow) cmdutil.Table {
	table := cmdutil.Table{Header: []string{"FROM", "HOP", "ROUTER", "IN", "ACTION", "OUT", "NEXT HOP", "NEXT ROUTER"}}
	for _, r := range rows {
		router := r.Router
		if router == "" {
			router = r.RouterID
		}
		line := []string{r.From, strconv.Itoa(r.Hop), router, labelText(r.In), r.Action}
		if len(r.Next) == 0 {
			table.Rows = append(table.Rows, append(line, "-", orDash(r.Why), "-"))
		}
		for _, h := range r.Next {
			next := routerID(h.Neighbor)
			if name := t.names[next]; name != "" {
				next = name
			}
			table.Rows = append(table.Rows, append(line[:5:5], labelText(h.Label), h.to(), orDash(next)))
		}
	}
	return table
}
