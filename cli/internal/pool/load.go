package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
	servicev1 "github.com/manycast/manycast/proto/service/v1"
)

// Load reads all services with their pools, sorted by name, within the Factory's timeout. What is damaged is told and left
// out, as the daemons do.
func (s *Store) Load(ctx context.Context) (*Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, s.f.Timeout)
	defer cancel()
	snap, err := s.load(ctx)
	if errors.Is(err, bus.ErrDenied) {
		return nil, fmt.Errorf("%w: %s are not an operator's credentials: name those with --credentials", err, s.f.Credentials)
	}
	return snap, err
}

func (s *Store) load(ctx context.Context) (*Snapshot, error) {
	snap := &Snapshot{}
	l := loader{Store: s, services: map[string]*Service{}, servers: map[string]*Server{}}
	steps := []struct {
		bucket string
		take   func(bus.Entry) error
	}{
		{bus.BucketServices, l.service},
		{bus.BucketAllocations, l.allocation},
		{bus.BucketServers, l.registration},
		{bus.BucketOperator, l.operator},
		{bus.BucketMoves, l.dampened},
		{bus.BucketPins, l.pins},
	}
	for _, step := range steps {
		entries, err := s.Bucket(step.bucket).List(ctx)
		if errors.Is(err, bus.ErrNoBucket) && step.bucket == bus.BucketPins {
			continue // a bus of an earlier release
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if err := step.take(e); err != nil {
				fmt.Fprintf(s.f.Err, "manycast: warning: %s/%s on the bus cannot be used: %v\n", step.bucket, e.Key, err)
			}
		}
	}
	var err error
	if snap.At, err = s.Bucket(bus.BucketServers).Now(ctx); err != nil {
		return nil, err
	}
	if snap.Leader, err = s.leader(ctx); err != nil {
		return nil, err
	}
	l.assemble(snap)
	return snap, nil
}

func (s *Store) leader(ctx context.Context) (string, error) {
	e, err := s.Bucket(bus.BucketLeases).Get(ctx, "director")
	if errors.Is(err, bus.ErrNotFound) {
		return "", nil
	}
	var p allocv1.Lease
	if err == nil {
		err = proto.Unmarshal(e.Value, &p)
	}
	return p.GetHolder(), err
}

// loader collects entries by their keys.
type loader struct {
	*Store
	services map[string]*Service
	servers  map[string]*Server
	renewed  map[string]time.Time
}

func (l *loader) service(e bus.Entry) error {
	var p servicev1.Service
	if err := proto.Unmarshal(e.Value, &p); err != nil {
		return err
	}
	spec, err := service.FromProto(&p)
	if err == nil && spec.Name != e.Key {
		err = fmt.Errorf("it says that its name is %q", spec.Name)
	}
	if err != nil {
		return err
	}
	l.services[e.Key] = &Service{Spec: spec, Revision: e.Revision}
	for _, m := range spec.Servers {
		server := l.server(e.Key, m.Name)
		server.Address, server.Weight, server.Own, server.Static = m.Address.String(), m.Weight, m.Weight, spec.Static()
	}
	return nil
}

func (l *loader) allocation(e bus.Entry) error {
	svc := l.services[e.Key]
	if svc == nil {
		return nil // of a service that was deleted: its epochs go on when it comes back
	}
	var p allocv1.State
	err := proto.Unmarshal(e.Value, &p)
	if err == nil {
		svc.Committed, err = alloc.FromProto(p.GetCommitted())
	}
	if err == nil {
		svc.Prepared, err = alloc.FromProto(p.GetPrepared())
	}
	if err != nil {
		svc.Committed, svc.Prepared = alloc.Allocation{}, alloc.Allocation{}
		return err
	}
	svc.Since = e.Created
	for _, name := range svc.Committed.Servers {
		l.server(e.Key, name)
	}
	return nil
}

func (l *loader) registration(e bus.Entry) error {
	var p allocv1.Registration
	if err := proto.Unmarshal(e.Value, &p); err != nil {
		return err
	}
	if e.Key != p.GetService()+"."+p.GetName() {
		return fmt.Errorf("it says that it is of server %q in service %q", p.GetName(), p.GetService())
	}
	m := l.server(p.GetService(), p.GetName())
	m.Registered, m.Healthy = true, p.GetHealthy()
	if a, err := netip.ParseAddr(p.GetAddress()); err == nil && a.Zone() == "" {
		m.Address = a.String()
	}
	m.Own = int(min(p.GetWeight(), alloc.MaxWeight))
	m.Weight = m.Own
	if p.Load != nil {
		load := alloc.LoadFromProto(p.Load)
		m.Load = &load
	}
	if l.renewed == nil {
		l.renewed = map[string]time.Time{}
	}
	l.renewed[e.Key] = e.Created
	return nil
}

func (l *loader) pins(e bus.Entry) error {
	svc, name, ok := strings.Cut(e.Key, ".")
	if !ok {
		return errors.New("its key is not SERVICE.NAME")
	}
	var p handoverv1.Pins
	if err := proto.Unmarshal(e.Value, &p); err != nil {
		return err
	}
	if l.services[svc] != nil {
		m := l.server(svc, name)
		m.Pinned, m.Unpinned = len(p.GetUsers()), int(p.GetOver())+int(p.GetApart())
	}
	return nil
}

func (l *loader) operator(e bus.Entry) error {
	svc, name, ok := strings.Cut(e.Key, ".")
	if !ok {
		return errors.New("its key is not SERVICE.NAME")
	}
	var p allocv1.Operator
	if err := proto.Unmarshal(e.Value, &p); err != nil {
		return err
	}
	if l.services[svc] == nil {
		return nil
	}
	m := l.server(svc, name)
	m.Drained, m.Wish = p.GetDrained(), e.Revision
	if p.Weight != nil {
		m.Weight, m.Overridden = int(min(p.GetWeight(), alloc.MaxWeight)), true
	}
	return nil
}

func (l *loader) dampened(e bus.Entry) error {
	var p allocv1.Moves
	if err := proto.Unmarshal(e.Value, &p); err != nil {
		return err
	}
	for _, d := range p.GetDampened() {
		if m := l.servers[e.Key+"."+d.GetServer()]; m != nil {
			m.Dampened = time.Unix(0, d.GetUntilUnixNano())
		}
	}
	return nil
}

func (l *loader) server(svc, name string) *Server {
	key := svc + "." + name
	if l.servers[key] == nil {
		l.servers[key] = &Server{Service: svc, Name: name}
	}
	return l.servers[key]
}

func (l *loader) assemble(snap *Snapshot) {
	for key, m := range l.servers {
		if m.Registered {
			m.Age = max(snap.At.Sub(l.renewed[key]), 0)
		}
		if !m.Dampened.After(snap.At) {
			m.Dampened = time.Time{}
		}
		if svc := l.services[m.Service]; svc != nil {
			svc.Servers = append(svc.Servers, *m)
		} else {
			snap.Strays = append(snap.Strays, *m)
		}
	}
	byName := func(a, b Server) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Name, b.Name))
	}
	for _, name := range slices.Sorted(maps.Keys(l.services)) {
		slices.SortFunc(l.services[name].Servers, byName)
		snap.Services = append(snap.Services, l.services[name])
	}
	slices.SortFunc(snap.Strays, byName)
}

// Moves returns the last moves of a service, oldest first.
func (s *Store) Moves(ctx context.Context, name string) ([]*allocv1.Move, error) {
	e, err := s.Bucket(bus.BucketMoves).Get(ctx, name)
	if errors.Is(err, bus.ErrNotFound) {
		return nil, nil
	}
	var p allocv1.Moves
	if err == nil {
		err = proto.Unmarshal(e.Value, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("moves of %s: %w", name, err)
	}
	return p.GetMoves(), nil
}
