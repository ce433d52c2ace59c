package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/store"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// Renewals of a registration, and how often we look whether somebody else has our name.
const (
	renewEvery   = 500 * time.Millisecond
	renewTimeout = 400 * time.Millisecond
	lookEvery    = 8 // renewals
)

// registrar keeps the server's registrations renewed.
type registrar struct {
	bucket store.Bucket
	proto  *allocv1.Registration // without service and health
	able   func(service.Service) bool
	log    *slog.Logger
	kick   chan struct{}
	told   map[string]string // what was warned of last, by service: it is met again twice a second

	mu       sync.Mutex
	services []service.Service
	judged   bool // healthy says something
	healthy  bool
	loads    map[string]alloc.Load // by service; they go with the next renewals
}

// newRegistrar returns a registrar that has yet to run. A server that is not able to serve a service registers as unhealthy.
// Before the first setHealthy nothing is renewed: the registration of a run that ended just before stays, and moves nobody.
func newRegistrar(b store.Bucket, p *allocv1.Registration, able func(service.Service) bool, log *slog.Logger) *registrar {
	return &registrar{bucket: b, proto: p, able: able, log: log, kick: make(chan struct{}, 1), told: map[string]string{}}
}

// setServices changes what is registered; services that are gone are taken back.
func (r *registrar) setServices(services []service.Service) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.services = services
	r.renewNow()
}

func (r *registrar) setLoads(loads map[string]alloc.Load) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loads = loads
}

func (r *registrar) setHealthy(healthy bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.judged || healthy != r.healthy {
		r.judged, r.healthy = true, healthy
		r.renewNow()
	}
}

func (r *registrar) renewNow() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// run renews until ctx is done. Then keeps says whether the registrations are left to their fate, else they are taken back.
func (r *registrar) run(ctx context.Context, keeps func(context.Context) bool) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	var registered []string
	for n := 0; ; n++ {
		r.mu.Lock()
		services, judged, healthy := r.services, r.judged, r.healthy
		r.mu.Unlock()
		names := make([]string, len(services))
		for i, s := range services {
			names[i] = s.Name
			if judged {
				r.renew(ctx, s, healthy && r.able(s))
			}
		}
		for _, name := range registered {
			if !slices.Contains(names, name) {
				r.remove(ctx, name)
			}
		}
		registered = names
		if judged && n%lookEvery == 0 {
			r.look(ctx, names)
		}
		select {
		case <-tick.C:
		case <-r.kick:
		case <-ctx.Done():
			if keeps(ctx) {
				return
			}
			for _, name := range registered {
				r.remove(context.WithoutCancel(ctx), name)
			}
			return
		}
	}
}

func (r *registrar) key(service string) string { return service + "." + r.proto.GetName() }

func (r *registrar) renew(ctx context.Context, s service.Service, healthy bool) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	p := proto.CloneOf(r.proto)
	p.Service, p.Healthy, p.Load = s.Name, healthy, r.load(s.Name)
	data, err := proto.Marshal(p)
	if err == nil {
		_, err = r.bucket.Put(ctx, r.key(s.Name), data)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, bus.ErrAway) {
		r.warn(s.Name, err)
	}
	if err == nil && r.told[s.Name] != "" {
		delete(r.told, s.Name)
		r.log.Info("registered again", "service", s.Name)
	}
}

// warn tells each trouble once.
func (r *registrar) warn(service string, err error) {
	if text := err.Error(); r.told[service] != text {
		r.told[service] = text
		r.log.Warn("not registered", "service", service, "err", err)
	}
}

// load is nil where nothing is known.
func (r *registrar) load(service string) *allocv1.Load {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l, ok := r.loads[service]; ok {
		return alloc.LoadToProto(l)
	}
	return nil
}

// checkName returns an error when an agent at another address is registered under this name in one of the services and alive: it
// would serve the users that are allocated to the name, as we would. What cannot be asked is taken for free; look comes later.
func (r *registrar) checkName(ctx context.Context, services []string) error {
	for _, name := range services {
		first, other := r.registered(ctx, name)
		if other == nil {
			continue
		}
		wait := time.NewTimer(2*renewEvery + renewTimeout)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil
		}
		if second, other := r.registered(ctx, name); other != nil && second > first {
			return fmt.Errorf("another agent, at %s, is registered as server %s of service %s and alive: give each server a `name` of its own",
				other.GetAddress(), other.GetName(), name)
		}
	}
	return nil
}

// registered returns the registration under this name, if it is one of another address.
func (r *registrar) registered(ctx context.Context, service string) (revision uint64, other *allocv1.Registration) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	e, err := r.bucket.Get(ctx, r.key(service))
	var p allocv1.Registration
	if err != nil || proto.Unmarshal(e.Value, &p) != nil || p.GetAddress() == r.proto.GetAddress() {
		return 0, nil
	}
	return e.Revision, &p
}

// look tells when another agent registers under the same name: both would serve the same users.
func (r *registrar) look(ctx context.Context, services []string) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	for _, name := range services {
		e, err := r.bucket.Get(ctx, r.key(name))
		if err != nil {
			continue
		}
		var p allocv1.Registration
		if proto.Unmarshal(e.Value, &p) == nil && p.GetBootId() != r.proto.GetBootId() {
			r.log.Error("another agent registers under this name: give each server its own", "service", name,
				"name", p.GetName(), "its address", p.GetAddress(), "our address", r.proto.GetAddress())
		}
	}
}

func (r *registrar) remove(ctx context.Context, service string) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	if err := r.bucket.Delete(ctx, r.key(service)); err != nil && !errors.Is(err, bus.ErrAway) {
		r.log.Warn("registration not taken back; it ends by itself", "service", service, "err", err)
	}
}
