// Package scenario runs scenarios in a lab: users at work while the network changes under them, and checks that tell whether
// all went as it has to.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
	"github.com/manycast/manycast/internal/service"
)

// Names are the scenarios that there are.
var Names = []string{"multicast"}

// Options say how a scenario is run.
type Options struct {
	Duration time.Duration // of the users' work
	Clients  int           // users
	Static   bool          // portions from a file, unsigned joins: the phases that need no bus
	Name     string        // of the lab; empty: the topology's
	Set      map[string]string
	Progress *Progress
}

// MinDuration lets a killed server be found and every phase be seen.
const MinDuration = 12 * time.Second

// multicast is one run of the scenario of that name.
type multicast struct {
	o       Options
	store   *lab.Store
	lab     *lab.Lab
	vars    map[string]string
	servers []string
	routers []string
	users   []netip.Addr
	ledgers map[string]*ledger
	checks  []report.Check
	began   time.Time

	mu         sync.Mutex
	tally      report.Tally
	allocation alloc.Allocation
	moves      []report.Move
	done       map[string]time.Time // when the last agent was done with an epoch
	changed    chan struct{}        // closed and replaced at news
}

// Multicast brings the lab of that name up, runs all phases and takes it down again. The report is there whenever the users
// worked; the error says what kept the scenario from its end.
func Multicast(ctx context.Context, s *lab.Store, o Options) (*report.Report, error) {
	if o.Duration < MinDuration {
		return nil, fmt.Errorf("duration %v: want at least %v", o.Duration, MinDuration)
	}
	source, err := lab.BuiltIn("multicast")
	if err != nil {
		return nil, err
	}
	set := map[string]string{}
	for k, v := range o.Set {
		set[k] = v
	}
	if o.Static {
		set["mode"] = "static"
	}
	o.Progress.Phase("up")
	l, err := s.Up(ctx, source, o.Name, set)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	m := &multicast{
		o: o, store: s, lab: l, vars: l.Topology().Vars, servers: []string{"s1", "s2", "s3"}, routers: []string{"r1", "r2"},
		ledgers: map[string]*ledger{}, done: map[string]time.Time{}, changed: make(chan struct{}),
	}
	err = m.run(ctx)
	o.Progress.Phase("down")
	removed, downErr := s.Down(context.WithoutCancel(ctx), l.Name())
	o.Progress.Note("%s", removed)
	m.checkLeftovers(downErr)
	if m.began.IsZero() {
		return nil, errors.Join(err, downErr)
	}
	return m.report(), errors.Join(err, downErr)
}

func (m *multicast) run(ctx context.Context) (err error) {
	addresses := m.lab.Topology().Node("users").Addresses["eth0"]
	if m.o.Clients < 1 || m.o.Clients > len(addresses) {
		return fmt.Errorf("clients %d: want 1 to %d", m.o.Clients, len(addresses))
	}
	for _, a := range addresses[:m.o.Clients] {
		m.users = append(m.users, a.Addr())
	}
	stop, err := m.follow()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	m.o.Progress.Phase("ready")
	if err := m.waitReady(ctx); err != nil {
		return err
	}
	if err := m.count(ctx); err != nil {
		return err
	}
	sniffed, err := m.sniff(ctx)
	if err != nil {
		return err
	}
	err = m.work(ctx)
	return errors.Join(err, sniffed(), m.count(context.WithoutCancel(ctx)))
}

// follow learns of allocations: from the bus, or once from the static file.
func (m *multicast) follow() (stop func() error, err error) {
	if m.o.Static {
		services, err := service.Load(filepath.Join(m.lab.Dir("r1"), "services.yaml"))
		if err != nil {
			return nil, err
		}
		m.tally.Timeline = report.Timeline{{Epoch: "static", Owner: staticOwner(services[0])}}
		return func() error { return nil }, nil
	}
	h, err := startHelper(m.lab, "ctl", m.hear, "manycast", "lab", "watch", "--service", m.vars["service"])
	if err != nil {
		return nil, err
	}
	return h.stop, nil
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

func (m *multicast) hear(n News) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n.Moves != nil {
		m.moves = n.Moves
		m.done[n.Moves[len(n.Moves)-1].Epoch] = n.At
	}
	if a := n.Allocation; a != nil && a.Epoch != m.allocation.Epoch {
		m.allocation = *a
		m.tally.Timeline = append(m.tally.Timeline, report.Era{At: n.At, Epoch: a.Epoch.String(), Owner: func(u netip.Addr) string {
			answer, err := a.Why(u)
			if err != nil {
				return ""
			}
			return answer.Owner
		}})
		m.o.Progress.Note("epoch %v: %s", a.Epoch, slots(*a, m.servers))
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

func slots(a alloc.Allocation, servers []string) string {
	var parts []string
	counts := a.Counts()
	for _, s := range servers {
		parts = append(parts, fmt.Sprintf("%s %d", s, counts[s]))
	}
	return strings.Join(parts, ", ") + " slots"
}

// await waits until the allocation is as wanted and all agents are done with it, and returns when they were.
func (m *multicast) await(ctx context.Context, what string, want func(counts map[string]int) bool) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		m.mu.Lock()
		a, changed := m.allocation, m.changed
		done, isDone := m.done[a.Epoch.String()]
		m.mu.Unlock()
		if !a.Zero() && isDone && want(a.Counts()) {
			return done, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("no allocation in which %s came within 10 s; it is: %s", what, slots(a, m.servers))
		}
	}
}

// waitReady waits until every user is answered by its owner.
func (m *multicast) waitReady(ctx context.Context) error {
	if !m.o.Static {
		everybody := func(c map[string]int) bool { return c["s1"] > 0 && c["s2"] > 0 && c["s3"] > 0 }
		if _, err := m.await(ctx, "all servers serve", everybody); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(15 * time.Second)
	for _, u := range m.users {
		for {
			server, err := m.get(ctx, u)
			m.mu.Lock()
			want := m.tally.Timeline.Owner(u, time.Now())
			m.mu.Unlock()
			if err == nil && server == want {
				break
			}
			if time.Now().After(deadline) || ctx.Err() != nil {
				return fmt.Errorf("user %v is not served by %s: answer %q, %w", u, want, server, errors.Join(err, ctx.Err()))
			}
		}
	}
	return nil
}

// work lets the users work while the phases go by.
func (m *multicast) work(ctx context.Context) error {
	var users []string
	for _, u := range m.users {
		users = append(users, u.String())
	}
	m.began = time.Now()
	clients, err := startHelper(m.lab, "users", m.see, "manycast", "lab", "client",
		"--url", "http://"+m.vars["vip"]+"/", "--user", strings.Join(users, ","))
	if err != nil {
		return err
	}
	err = m.phases(ctx)
	return errors.Join(err, clients.stop())
}

func (m *multicast) see(e traffic.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tally.Add(e)
}
