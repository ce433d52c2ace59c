package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/wholefile"
)

const (
	lookEvery  = 15 * time.Second // who renews no more
	renewAgain = 30 * time.Second // what all get for it when the bus has come back
)

// Servers follows the registrations of servers on the bus. Those that are known are kept in a file, so that a router that starts while
// the bus is away keeps their trees.
type Servers struct {
	bucket *bus.Bucket
	path   string
	log    *slog.Logger
	known  *registrations
	out    chan []netip.Addr
	warned bool
	synced time.Time // when the bus told all there is; zero: not yet
}

// NewServers reads the servers that were known before from the file at path. A server stays for linger when its registration is gone.
func NewServers(c *bus.Conn, path string, linger time.Duration, log *slog.Logger) (*Servers, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("known servers: %w", err)
	}
	var before []netip.Addr
	for line := range strings.Lines(string(text)) {
		a, err := netip.ParseAddr(strings.TrimSpace(line))
		if err != nil || len(before) >= serversMost {
			log.Warn("known servers: a line is passed over", "file", path, "line", strings.TrimSpace(line))
			continue
		}
		before = append(before, a)
	}
	return &Servers{
		bucket: c.Bucket(bus.BucketConfig{Name: bus.BucketServers}), path: path, log: log,
		known: newRegistrations(before, linger), out: make(chan []netip.Addr),
	}, nil
}

// All has all servers there are, at first and at each change.
func (s *Servers) All() <-chan []netip.Addr { return s.out }

// Ready implements daemon.Task: nobody waits for the bus.
func (s *Servers) Ready() <-chan struct{} { return nil }

// String implements daemon.Task.
func (s *Servers) String() string { return "servers" }

// Run follows the bus until ctx ends.
func (s *Servers) Run(ctx context.Context) error {
	entries := s.bucket.Watch(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for told := false; ; {
		var out chan []netip.Addr
		var all []netip.Addr
		if !told {
			out, all = s.out, s.known.all()
		}
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-entries:
			if e.Synced {
				s.synced = time.Now()
			}
			if ok && s.known.take(time.Now(), e) {
				told = false
			}
		case <-look.C:
			if s.look(ctx) {
				told = false
			}
		case <-timer.C:
			if s.known.expire(time.Now()) {
				told = false
			}
		case out <- all:
			told = true
			s.keep(all)
		}
		s.complain()
		if next := s.known.next(); !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		}
	}
}

// look finds who renews no more; nobody can while the bus is away.
func (s *Servers) look(ctx context.Context) (changed bool) {
	if s.synced.IsZero() || time.Since(s.synced) < renewAgain {
		return false
	}
	now, err := s.bucket.Now(ctx)
	return err == nil && s.known.silent(time.Now(), now)
}

// complain warns once of servers that are too many.
func (s *Servers) complain() {
	if s.known.refused > 0 && !s.warned {
		s.warned = true
		s.log.Warn("more servers on the bus than trees are made for", "most", serversMost)
	}
}

// keep writes the file.
func (s *Servers) keep(all []netip.Addr) {
	var b bytes.Buffer
	for _, a := range all {
		fmt.Fprintln(&b, a)
	}
	if err := wholefile.Write(s.path, b.Bytes()); err != nil {
		s.log.Warn("known servers are not kept", "err", err)
	}
}
