package marking

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/rtnl"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// Backend is a kernel.Backend whose users are steered by marks. Its methods may be called from several goroutines.
type Backend struct {
	kernel.Backend
	config Config
	log    *slog.Logger
	watch  *watch
	over   sync.WaitGroup

	mu      sync.Mutex
	program *program
	tables  tables
	users   *vips.Users   // nil: nobody has said yet, and what a process before has left goes on
	left    []steer.Owner // warned of
}

// Open puts the program on the interfaces toward users; they, rules and tables are those of the network namespace of the calling thread.
// What a process before has left steers until the first Steer. It closes the Backend that it is given, the one with the routes of labels.
func Open(c Config, routes kernel.Backend, log *slog.Logger) (*Backend, error) {
	b := &Backend{Backend: routes, config: c, log: log}
	var err error
	if b.program, err = openProgram(c); err != nil {
		return nil, err
	}
	if b.tables.conn, err = rtnl.Dial(); err != nil {
		return nil, err
	}
	if b.watch, err = newWatch(b.tables.conn.Port()); err != nil {
		return nil, err
	}
	if err := b.program.attach(c.Edge); err != nil {
		return nil, err
	}
	b.over.Go(b.follow)
	return b, nil
}

// Remove takes away what a process has left that marked.
func Remove(pins string) error {
	conn, err := rtnl.Dial()
	if err != nil {
		return err
	}
	t := tables{conn: conn}
	return errors.Join(removePins(pins), t.prune(wanted{}), conn.Close())
}

// settle is how long others' changes are left to become one; what failed is tried again soon, and then later and later.
const (
	settle     = 50 * time.Millisecond
	retrySoon  = time.Second
	retryLater = time.Minute
)

// follow does it again when others have changed interfaces, rules or routes.
func (b *Backend) follow() {
	var again <-chan time.Time // nil: never
	wait := retrySoon
	for {
		select {
		case _, more := <-b.watch.changed:
			if !more {
				if b.watch.err != nil {
					b.log.Error("what others change of rules, routes and interfaces is no longer noticed", "err", b.watch.err)
				}
				return
			}
			time.Sleep(settle)
		case <-again:
		}
		b.mu.Lock()
		b.tables.known = false
		err := errors.Join(b.program.attach(b.config.Edge), b.apply())
		b.mu.Unlock()
		if again = nil; err == nil {
			wait = retrySoon
			continue
		}
		b.log.Error("users are not steered as they should be", "err", err)
		again, wait = time.After(wait), min(2*wait, retryLater)
	}
}

// Steer makes these what users are steered by. A user's packets go by one tree or another, never by none in between.
func (b *Backend) Steer(u vips.Users) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users = &u
	return b.apply()
}

// apply brings it in. The caller holds mu.
func (b *Backend) apply() error {
	if b.users == nil {
		return nil
	}
	w, left, err := want(b.config, *b.users)
	if len(left) > 0 && !slices.Equal(left, b.left) {
		b.log.Warn("users of servers go as routes say, for the kernel has no routes like their trees: by UDP, or of IPv6 by next hops of IPv4 that "+
			"want no label; set fast_path, or give those servers addresses of IPv6", "servers", len(left))
	}
	b.left = left
	return errors.Join(err, b.tables.add(w), b.program.refuse(b.users.Refuse), b.program.vips.Set(b.users.VIPs, b.users.Split), b.tables.prune(w))
}

// Counters are what the program has done, by name; also what that of a process before did.
func (b *Backend) Counters() (map[string]uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, err := b.program.counters()
	if err != nil {
		return nil, fmt.Errorf("marking program: %w", err)
	}
	return c.byName(), nil
}

// Close implements kernel.Backend.
func (b *Backend) Close(keep bool) error {
	err := b.watch.close()
	b.over.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	err = errors.Join(err, b.program.close(keep))
	if !keep {
		b.tables.known = false
		err = errors.Join(err, b.tables.prune(wanted{}))
	}
	return errors.Join(err, b.tables.conn.Close(), b.Backend.Close(keep))
}
