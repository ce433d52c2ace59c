package scenario

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/service"
)

// follower knows who owns which user of one service: from the bus as it changes, or once from the static file.
type follower struct {
	service string
	note    func(format string, args ...any)

	mu         sync.Mutex
	timeline   report.Timeline // grows at its end only
	allocation alloc.Allocation
	leader     string // who has the lease; empty: nobody
	moves      []Move
	done       map[string]time.Time // when the last agent was done with an epoch
	changed    chan struct{}        // closed and replaced at news
}

func newFollower(service string, note func(format string, args ...any)) *follower {
	return &follower{service: service, note: note, done: map[string]time.Time{}, changed: make(chan struct{})}
}

// follow learns of the allocations of all services.
func (m *multicast) follow() (stop []*helper, err error) {
	if m.o.Static {
		services, err := service.Load(filepath.Join(m.lab.Dir("r1"), "services.yaml"))
		if err != nil {
			return nil, err
		}
		for _, s := range services {
			for _, f := range []*follower{m.web, m.second} {
				if f.service == s.Name {
					f.timeline = report.Timeline{{Epoch: "static", Owner: staticOwner(s)}}
				}
			}
		}
		return nil, nil
	}
	for _, f := range []*follower{m.web, m.second} {
		h, err := m.watch(f)
		if err != nil {
			return stop, err
		}
		stop = append(stop, h)
	}
	return stop, nil
}

func staticOwner(s service.Service) func(netip.Addr) string {
	return func(user netip.Addr) string {
		for _, server := range s.Servers {
			if server.Users().Contains(user) {
				return server.Name
			}
		}
		return ""
	}
}

func (f *follower) hear(n News) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range n.Moves { // the last ones: the bus forgets
		i := slices.IndexFunc(f.moves, func(known Move) bool { return known.Epoch == v.Epoch })
		if i < 0 {
			f.done[v.Epoch] = n.At
			f.moves = append(f.moves, v)
		} else {
			f.moves[i] = v
		}
	}
	if n.Leader != nil {
		f.leader = *n.Leader
		f.note("leader: %q", f.leader)
	}
	if a := n.Allocation; a != nil && a.Epoch != f.allocation.Epoch {
		f.allocation = *a
		f.timeline = append(f.timeline, era(n.At, *a))
		f.note("%s, epoch %v: %s", f.service, a.Epoch, slots(*a))
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func era(at time.Time, a alloc.Allocation) report.Era {
	why := func(u netip.Addr) alloc.Answer {
		answer, _ := a.Why(u) // of an error the answer has nobody
		return answer
	}
	return report.Era{
		At: at, Epoch: a.Epoch.String(),
		Owner:   func(u netip.Addr) string { return why(u).Owner },
		Standby: func(u netip.Addr) string { return why(u).Standby },
	}
}

func slots(a alloc.Allocation) string {
	var parts []string
	counts := a.Counts()
	for _, s := range a.Servers {
		parts = append(parts, fmt.Sprintf("%s %d", s, counts[s]))
	}
	return strings.Join(parts, ", ") + " slots"
}

// eras are all eras so far.
func (f *follower) eras() report.Timeline {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.timeline
}

// owner is who owns the user now.
func (f *follower) owner(user netip.Addr) string { return f.eras().Owner(user, time.Now()) }

// between are the moves that the last agent was done with from start to end.
func (f *follower) between(start, end time.Time) (moves []Move) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.moves {
		if done := f.done[v.Epoch]; !done.Before(start) && done.Before(end) {
			moves = append(moves, v)
		}
	}
	return moves
}

// all are the moves so far.
func (f *follower) all() []Move {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.moves)
}

// await waits until the servers have as many slots as wanted and all agents are done with that, and returns when they were.
func (f *follower) await(ctx context.Context, what string, want func(counts map[string]int) bool) (time.Time, error) {
	return f.awaitAllocation(ctx, what, func(a alloc.Allocation) bool { return want(a.Counts()) })
}

// awaitAllocation waits until the allocation is as wanted and all agents are done with it, and returns when they were.
func (f *follower) awaitAllocation(ctx context.Context, what string, want func(alloc.Allocation) bool) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		f.mu.Lock()
		a, changed := f.allocation, f.changed
		done, isDone := f.done[a.Epoch.String()]
		f.mu.Unlock()
		if !a.Zero() && isDone && want(a) {
			return done, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s: no allocation in which %s came within 10 s; it is: %s", f.service, what, slots(a))
		}
	}
}

// awaitEpoch waits until an allocation after that one is committed; agents may not be done with it.
func (f *follower) awaitEpoch(ctx context.Context, after epoch.Epoch) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		f.mu.Lock()
		now, changed := f.allocation.Epoch, f.changed
		f.mu.Unlock()
		if after.Less(now) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: no allocation came after %v within 10 s", f.service, after)
		}
	}
}

// owners are the servers that have users, with their slots, by the newest allocation.
func (f *follower) owners() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := f.allocation.Counts()
	maps.DeleteFunc(counts, func(_ string, slots int) bool { return slots == 0 })
	return counts
}

// epoch is the newest allocation's.
func (f *follower) epoch() epoch.Epoch {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.allocation.Epoch
}

// leads is who has the lease.
func (f *follower) leads() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leader
}

// awaitLeader waits until one leads whom ok takes.
func (f *follower) awaitLeader(ctx context.Context, ok func(name string) bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		f.mu.Lock()
		leader, changed := f.leader, f.changed
		f.mu.Unlock()
		if leader != "" && ok(leader) {
			return leader, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", fmt.Errorf("no such leader came within 10 s; there is %q", leader)
		}
	}
}
