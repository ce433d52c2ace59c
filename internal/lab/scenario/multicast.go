// Package scenario runs scenarios in a lab: users at work while the network changes under them, and checks that tell whether
// all went as it has to.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
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

	web    *follower // the service that the users work with
	second *follower // another on the same VIP

	mu    sync.Mutex
	tally report.Tally
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
		ledgers: map[string]*ledger{},
	}
	m.web, m.second = newFollower(m.vars["service"], o.Progress.Note), newFollower(m.vars["second"], o.Progress.Note)
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
	watchers, err := m.follow()
	defer func() {
		for _, w := range watchers {
			err = errors.Join(err, w.stop())
		}
	}()
	if err != nil {
		return err
	}
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

// waitReady waits until every user is answered by its owner.
func (m *multicast) waitReady(ctx context.Context) error {
	if !m.o.Static {
		for f, pool := range map[*follower][]string{m.web: m.servers, m.second: secondPool} {
			everybody := func(c map[string]int) bool {
				return !slices.ContainsFunc(pool, func(s string) bool { return c[s] == 0 })
			}
			if _, err := f.await(ctx, "all servers serve", everybody); err != nil {
				return err
			}
		}
	}
	deadline := time.Now().Add(15 * time.Second)
	for _, u := range m.users {
		for {
			server, err := m.get(ctx, u)
			want := m.web.owner(u)
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
