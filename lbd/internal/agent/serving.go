package agent

import (
	"context"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
)

// Measure reports the server's loads by service, again and again until ctx is done (load.Task). serving may be called at any time.
type Measure func(ctx context.Context, serving func() []Serving, report func(loads map[string]alloc.Load))

// Serving is a service that the server is in.
type Serving struct {
	service.Service
	Servers []string // that own users or stand by, by what is executed; sorted
	// Kept counts, of the users that are connected here, what is kept of others' users; nil: nothing is kept.
	Kept func(connected iter.Seq[netip.AddrPort]) alloc.Kept
	// MayKeep: there may be something to count.
	MayKeep bool
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
		}
		out = append(out, s)
	}
	return out
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
