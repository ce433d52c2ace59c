package flows

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/lbd/internal/handover"
	"github.com/manycast/manycast/lbd/internal/mover"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

const (
	pageRows  = 2048
	maxRows   = 2 << 20          // of a list
	maxLists  = 2                // kept for their next pages
	listStays = 30 * time.Second // after its last page that was asked for
)

// row is a connection in a list.
type row struct {
	view   *mover.View
	flow   handover.Flow
	moving *handover.Status // nil: it does not move
	comes  bool             // moving: to this server
}

// list are connections as they were at one time.
type list struct {
	id   uint64
	used time.Time
	rows []row
	cut  bool
	at   time.Time
}

// lists are those whose next pages may be asked for.
type lists struct {
	mu   sync.Mutex
	last uint64
	all  []*list
}

func (l *lists) put(now time.Time, n *list) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	n.id, n.used = l.last, now
	if l.all = append(l.all, n); len(l.all) > maxLists {
		l.all = slices.Delete(l.all, 0, 1)
	}
}

func (l *lists) get(now time.Time, id uint64) *list {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.all {
		if n.id == id {
			n.used = now
			return n
		}
	}
	return nil
}

func (l *lists) drop(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = slices.DeleteFunc(l.all, func(n *list) bool { return n.id == id })
}

func (l *lists) sweep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = slices.DeleteFunc(l.all, func(n *list) bool { return now.Sub(n.used) > listStays })
}

// list answers a page.
func (t *Task) list(ctx context.Context, now time.Time, request *handoverv1.ListRequest) (*handoverv1.FlowPage, error) {
	if request.GetAfter() == "" {
		l, err := t.takeDown(ctx, now, request)
		if err != nil {
			return nil, err
		}
		t.lists.put(now, l)
		return t.page(l, 0), nil
	}
	id, from, err := parseAfter(request.GetAfter())
	if err != nil {
		return nil, err
	}
	l := t.lists.get(now, id)
	if l == nil || from > len(l.rows) {
		return nil, fmt.Errorf("page %.40q: the list is not kept any more, for others were asked for or it took too long: ask again, of one service or user", request.GetAfter())
	}
	return t.page(l, from), nil
}

func parseAfter(text string) (id uint64, from int, err error) {
	first, second, ok := strings.Cut(text, ".")
	if id, err = strconv.ParseUint(first, 10, 64); err == nil {
		from, err = strconv.Atoi(second)
	}
	if !ok || err != nil || from < 0 {
		return 0, 0, fmt.Errorf("page %.40q: want what an answer said to be next", text)
	}
	return id, from, nil
}

// page are the rows from one on. The last one ends the list.
func (t *Task) page(l *list, from int) *handoverv1.FlowPage {
	p := &handoverv1.FlowPage{All: uint64(len(l.rows)), Cut: l.cut}
	end := min(from+pageRows, len(l.rows))
	for _, r := range l.rows[from:end] {
		p.Flows = append(p.Flows, t.show(l.at, r))
	}
	if end < len(l.rows) {
		p.Next = fmt.Sprintf("%d.%d", l.id, end)
	} else {
		t.lists.drop(l.id)
	}
	return p
}

func (t *Task) show(now time.Time, r row) *handoverv1.LiveFlow {
	state, owner, until := t.state(r)
	f := &handoverv1.LiveFlow{
		Service: r.view.Service.Name, Flow: handover.EncodeFlow(r.flow), State: state, Owner: owner, Until: alloc.EpochToProto(until),
	}
	if r.moving != nil {
		f.Peer, f.Step, f.StepMs = r.moving.Peer, string(r.moving.Step), uint64(max(now.Sub(r.moving.Since), 0).Milliseconds())
	}
	return f
}

// state is what a connection is to this server.
func (t *Task) state(r row) (state handoverv1.FlowState, owner string, until epoch.Epoch) {
	owner = r.view.Owner(r.flow.Remote)
	if owner != "" && owner != t.cfg.Name {
		until = r.view.Allocation.ChainOf(r.view.Cell(r.flow.Remote)).Until(t.cfg.Name)
	}
	switch {
	case r.comes:
		return handoverv1.FlowState_FLOW_STATE_HELD, owner, epoch.Epoch{}
	case r.moving != nil:
		return handoverv1.FlowState_FLOW_STATE_MOVING, owner, until
	case owner == "" || owner == t.cfg.Name:
		return handoverv1.FlowState_FLOW_STATE_OWN, owner, until
	}
	return handoverv1.FlowState_FLOW_STATE_KEPT, owner, until
}

// takeDown lists what is asked for.
func (t *Task) takeDown(ctx context.Context, now time.Time, request *handoverv1.ListRequest) (*list, error) {
	users, err := parseUsers(request.GetUser())
	if err != nil {
		return nil, err
	}
	views, err := t.executed(request.GetService())
	if err != nil {
		return nil, err
	}
	moving, coming, err := t.moving(ctx)
	if err != nil {
		return nil, err
	}
	l := &list{at: now}
	add := func(r row) {
		state, _, _ := t.state(r)
		switch states := request.GetStates(); {
		case !users(r.flow.Remote), len(states) > 0 && !slices.Contains(states, state):
		case len(l.rows) >= maxRows:
			l.cut = true
		default:
			l.rows = append(l.rows, r)
		}
	}
	for i := range views {
		v := &views[i]
		if err := t.each(ctx, *v, func(f handover.Flow) {
			if coming[f] == nil { // it has a socket already, where it is about to live
				add(row{v, f, moving[f], false})
			}
		}); err != nil {
			return nil, err
		}
		for f, s := range coming {
			if slices.Contains(v.Ends(), f.Local) {
				add(row{v, f, s, true})
			}
		}
	}
	return l, nil
}

// moving are the connections that are on their way from here, and to here.
func (t *Task) moving(ctx context.Context) (from, to map[handover.Flow]*handover.Status, err error) {
	from, to = map[handover.Flow]*handover.Status{}, map[handover.Flow]*handover.Status{}
	if t.cfg.Mover == nil {
		return from, to, nil
	}
	s, err := t.cfg.Mover.Status(ctx)
	for i := range s.Giving {
		from[s.Giving[i].Flow] = &s.Giving[i]
	}
	for i := range s.Taking {
		to[s.Taking[i].Flow] = &s.Taking[i]
	}
	return from, to, err
}

// parseUsers reads an address, an address and port, or a prefix.
func parseUsers(text string) (func(netip.AddrPort) bool, error) {
	if text == "" {
		return func(netip.AddrPort) bool { return true }, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return func(u netip.AddrPort) bool { return p.Contains(u.Addr()) }, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return func(u netip.AddrPort) bool { return u.Addr() == a }, nil
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return nil, fmt.Errorf("user %.80q: want an address, an address and port, or a prefix", text)
	}
	return func(u netip.AddrPort) bool { return u == a }, nil
}
