package zone

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/manycast/manycast/internal/wholefile"
)

// Spec is a zone as the operator configures it.
type Spec struct {
	Name string // FQDN
	NS   []string
	Mbox string // of the SOA, as a domain name
	File string // master file to start from; empty: an empty zone
}

// Store holds the zones. Readers take no lock; updates come one at a time, and are on disk before anyone sees them.
type Store struct {
	dir   string
	now   func() time.Time
	log   *slog.Logger
	save  func(path string, text []byte) error
	wake  chan struct{} // an expiry may have become earlier
	turn  chan struct{}
	mu    sync.Mutex // writers
	zones atomic.Pointer[map[string]*Zone]
}

// Open reads each zone from dir, or where it is not there yet, from its master file, or makes an empty one.
func Open(dir string, specs []Spec, now func() time.Time, log *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, now: now, log: log, save: wholefile.Write, wake: make(chan struct{}, 1), turn: make(chan struct{})}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	zones := map[string]*Zone{}
	for _, spec := range specs {
		z, err := s.load(spec)
		if err != nil {
			return nil, err
		}
		zones[z.origin] = z
	}
	s.zones.Store(&zones)
	s.expire()
	return s, nil
}

func (s *Store) load(spec Spec) (*Zone, error) {
	z, err := ReadFile(s.path(dns.CanonicalName(spec.Name)), spec.Name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return z, err
	}
	if spec.File != "" {
		return ReadFile(spec.File, spec.Name)
	}
	return spec.empty(s.now())
}

// empty is a zone with SOA and NS alone.
func (spec Spec) empty(now time.Time) (*Zone, error) {
	name := dns.Fqdn(spec.Name)
	header := func(rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: 300}
	}
	if len(spec.NS) == 0 {
		return nil, fmt.Errorf("zone %s: no ns", name)
	}
	rrs := []dns.RR{&dns.SOA{Hdr: header(dns.TypeSOA), Ns: dns.Fqdn(spec.NS[0]), Mbox: dns.Fqdn(spec.Mbox),
		Serial: uint32(now.Unix()), Refresh: 3600, Retry: 600, Expire: 604800, Minttl: 5}}
	for _, ns := range spec.NS {
		rrs = append(rrs, &dns.NS{Hdr: header(dns.TypeNS), Ns: dns.Fqdn(ns)})
	}
	return New(name, rrs)
}

func (s *Store) path(origin string) string { return filepath.Join(s.dir, origin+"zone") }

// Zone is the current version of the zone called origin, or nil.
func (s *Store) Zone(origin string) *Zone { return (*s.zones.Load())[dns.CanonicalName(origin)] }

// Find is the zone that name lies in, or nil.
func (s *Store) Find(name string) *Zone {
	zones := *s.zones.Load()
	for name = dns.CanonicalName(name); ; name = parent(name) {
		if z, ok := zones[name]; ok {
			return z
		}
		if name == "." {
			return nil
		}
	}
}

// Update changes a zone (RFC 2136). A change that cannot be put on disk is SERVFAIL, and nobody sees any of it.
func (s *Store) Update(origin string, prerequisites, updates []dns.RR) (rcode int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := s.Zone(origin)
	if z == nil {
		return dns.RcodeNotAuth
	}
	next, rcode := z.Update(prerequisites, updates)
	if next == z {
		return rcode
	}
	if err := s.save(s.path(z.origin), next.text()); err != nil {
		s.log.Error("update not taken: cannot write the zone", "zone", z.origin, "err", err)
		return dns.RcodeServerFailure
	}
	s.publish(next)
	s.log.Info("zone updated", "zone", z.origin, "serial", next.SOA().Serial)
	return rcode
}

// publish lets readers see a zone. The caller holds the lock.
func (s *Store) publish(z *Zone) {
	zones := maps.Clone(*s.zones.Load())
	zones[z.origin] = z
	s.zones.Store(&zones)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// recheck bounds how long a step of the wall clock can keep a record alive.
const recheck = 10 * time.Second

// Turns is of Run's loop. It needs the writers' lock in each turn, so that a writer that hangs shows.
func (s *Store) Turns() []chan<- struct{} { return []chan<- struct{}{s.turn} }

// Run removes temporary records when their time is over, until ctx is done.
func (s *Store) Run(ctx context.Context) error {
	for {
		timer := time.NewTimer(s.expire())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.wake:
			timer.Stop()
		case <-s.turn: // then expire waits for whoever writes
			timer.Stop()
		case <-timer.C:
		}
	}
}

// expire removes what is over and says when to look again. A record that is over vanishes even if the disk is full.
func (s *Store) expire() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := recheck
	for _, z := range *s.zones.Load() {
		next := z.Expire(s.now())
		if next != z {
			if err := s.save(s.path(z.origin), next.text()); err != nil {
				s.log.Warn("temporary records ended, but are still on disk", "zone", z.origin, "err", err)
			}
			s.publish(next)
			s.log.Info("temporary records ended", "zone", z.origin, "serial", next.SOA().Serial)
		}
		if at := next.Expiry(); !at.IsZero() {
			wait = min(wait, max(at.Sub(s.now()), time.Millisecond))
		}
	}
	return wait
}
