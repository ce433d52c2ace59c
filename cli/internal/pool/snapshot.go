package pool

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
)

// Snapshot is what the bus holds at one time.
type Snapshot struct {
	At       time.Time // the bus' clock
	Leader   string    // the director that leads; empty: none does
	Services []*Service
	Strays   []Server // registered in services that are not there
}

// Service is a service with its pool.
type Service struct {
	Spec      service.Service
	Revision  uint64 // of the spec
	Servers   []Server
	Committed alloc.Allocation
	Prepared  alloc.Allocation // announced, executed by nobody
	Since     time.Time        // when the allocation was written
}

// Server is a member of a pool, as its registration and the operator have it.
type Server struct {
	Service    string
	Name       string
	Address    string
	Static     bool // of a static service: its agent does not register
	Registered bool
	Healthy    bool
	Age        time.Duration // since the last renewal of the registration
	Weight     int           // that counts: the operator's, else the registered one
	Own        int           // the registered weight
	Overridden bool          // the operator set Weight
	Drained    bool
	Dampened   time.Time   // kept out until then, for it died again and again; zero: it is not
	Load       *alloc.Load // of its last registration; nil: it does not say
	Pinned     int         // users of others whose packets come to it for their connections
	Unpinned   int         // such users whose packets are forwarded: too many, of IPv6, or told apart by port
	Wish       uint64      // revision of what the operator wants; 0: nothing
}

// DeadAfter is how long a server may be silent: the director's dead_after, unless it is configured otherwise.
const DeadAfter = 2500 * time.Millisecond

// Alive reports whether the server's agent renews its registration.
func (s Server) Alive() bool { return s.Registered && s.Age <= DeadAfter }

// Health is healthy, unhealthy, silent (its agent stopped renewing), absent (not registered), unknown (of a static service) or
// dampened (healthy, but kept out for a while).
func (s Server) Health() string {
	switch {
	case s.Static && !s.Registered:
		return "unknown"
	case !s.Registered:
		return "absent"
	case !s.Alive():
		return "silent"
	case !s.Healthy:
		return "unhealthy"
	case !s.Dampened.IsZero():
		return "dampened until " + s.Dampened.UTC().Format("15:04:05Z")
	}
	return "healthy"
}

// ErrStatic is returned for a service that says itself which server has which portions.
var ErrStatic = errors.New("the service is static: it says itself which server has which portions")

// Next is the allocation that the leader would make now for who is there and what the operator says, and what it moves:
// alloc.ErrNoServer when nobody may own anything.
func (s *Service) Next() (alloc.Allocation, alloc.Move, error) {
	next, move, _, err := s.decide(false)
	return next, move, err
}

// Rebalanced is the allocation that the leader would make if reports of load could move users now, as they can once an interval under policies
// that follow them, and why.
func (s *Service) Rebalanced() (alloc.Allocation, alloc.Move, []policy.Reason, error) {
	return s.decide(true)
}

func (s *Service) decide(due bool) (alloc.Allocation, alloc.Move, []policy.Reason, error) {
	if s.Spec.Static() {
		return alloc.Allocation{}, alloc.Move{}, nil, ErrStatic
	}
	in := policy.Input{Rules: s.Spec.Rules(), Loads: map[string]alloc.Load{}, Current: s.Committed, Due: due}
	for _, m := range s.Servers {
		in.Servers = append(in.Servers, alloc.Server{Name: m.Name, Weight: m.Weight, Drained: m.Drained, Alive: m.Alive() && m.Healthy})
		if m.Load != nil { // also of the dead: portions that they asked for wait for them
			in.Loads[m.Name] = *m.Load
		}
	}
	d := policy.Decide(in)
	want := d.Want(in.Rules)
	want.Epoch = s.Committed.Epoch
	want.Epoch.Number = max(s.Committed.Epoch.Number, s.Prepared.Epoch.Number) + 1
	next, move, err := alloc.Next(s.Committed, want)
	return next, move, append(d.Why, in.Rules.Late(move)...), err
}

// usualMTU is what links of servers are taken to have, in bytes.
const usualMTU = 1500

// CheckJoins returns an error where a server of the next allocation would need more portions in its join than routers take; while nobody is
// there, where a pool could be too small for the slots. It wraps alloc.ErrLarge.
func (s *Service) CheckJoins() error {
	if !s.Spec.Group.IsValid() {
		return nil // nobody joins
	}
	most := join.MostPortions(usualMTU)
	next, _, err := s.Next()
	switch {
	case err == nil:
		return next.CheckJoins(most)
	case !errors.Is(err, alloc.ErrNoServer):
		return nil // said elsewhere, or static
	}
	if err := alloc.CheckPools(s.Spec.Slots, most); err != nil {
		return fmt.Errorf("no server is there yet, but few would have %w", err)
	}
	return nil
}

// Settled reports whether the leader has nothing to do: what is committed is right for the servers as they are.
func (s *Service) Settled() bool {
	next, _, err := s.Next()
	return err != nil || next.Same(s.Committed) && s.Prepared.Zero()
}

// Server returns the service's server of that name.
func (s *Service) Server(name string) (Server, bool) {
	i := slices.IndexFunc(s.Servers, func(m Server) bool { return m.Name == name })
	if i < 0 {
		return Server{}, false
	}
	return s.Servers[i], true
}

// Share returns how much of the source space the server owns now: 0..1.
func (s *Service) Share(name string) float64 {
	if s.Spec.Static() {
		return s.users(name).Share()
	}
	return float64(s.Committed.Sizes()[name]) / alloc.Space
}

// Users returns whom the server owns; an allocation in as few portions as it can be written.
func (s *Service) Users(name string) portion.Set {
	if s.Spec.Static() {
		return s.users(name)
	}
	return s.Committed.Users(name)
}

// users are those that the service itself gives to the server.
func (s *Service) users(name string) portion.Set {
	for _, m := range s.Spec.Servers {
		if m.Name == name {
			return m.Users()
		}
	}
	return portion.Set{}
}

// Specs returns all services without their pools.
func (s *Snapshot) Specs() []service.Service {
	specs := make([]service.Service, 0, len(s.Services))
	for _, svc := range s.Services {
		specs = append(specs, svc.Spec)
	}
	return specs
}
