package agent

import (
	"context"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/pins"
)

// Measure reports the server's loads by service, again and again until ctx is done (load.Task). serving may be called at any time.
type Measure func(ctx context.Context, serving func() []Serving, report func(loads map[string]alloc.Load))

// Serving is a service that the server is in.
type Serving struct {
	service.Service
	Servers []string // that own users or stand by, by what is executed; sorted
	// Kept counts, of the users that are connected here, what is kept of others' users; nil: nothing is kept.
	Kept func(now time.Time, connected iter.Seq[netip.AddrPort]) alloc.Kept
	// MayKeep: there may be something to count.
	MayKeep bool
	// Pin takes who is connected here, for the network to bring packets of others' users here; nil: it does not.
	Pin func(connected iter.Seq[netip.AddrPort])

	pinned func(connected iter.Seq[netip.AddrPort]) pins.Pins
}

// serving are the services in order of names.
func (c *Core) serving() []Serving {
	var out []Serving
	for _, name := range slices.Sorted(maps.Keys(c.specs)) {
		s := Serving{Service: c.specs[name]}
		if s.Static() {
			for _, server := range s.Service.Servers {
				s.Servers = append(s.Servers, server.Name)
			}
			slices.Sort(s.Servers)
		} else {
			s.Servers = c.current(name).Used()
			s.Kept, s.MayKeep = c.kept(s.Service)
			s.pinned = c.pinned(s.Service)
			_, isAhead := c.ahead[name]
			s.MayKeep = s.MayKeep || isAhead
		}
		out = append(out, s)
	}
	return out
}

// show lets other goroutines know of what the core knows now.
func (l *Loop) show() {
	all := l.core.serving()
	for i, s := range all {
		if s.pinned != nil && l.pinner != nil {
			all[i].Pin = func(connected iter.Seq[netip.AddrPort]) { l.pinner.set(s.pinned(connected)) }
		}
	}
	l.shown.set(all)
}

// shown is what other goroutines may know of the core.
type shown struct {
	mu      sync.Mutex
	serving []Serving
}

func (s *shown) set(serving []Serving) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = serving
}

func (s *shown) get() []Serving {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving
}
