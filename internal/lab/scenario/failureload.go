package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/manycast/manycast/internal/lab/traffic"
)

// The applications say their load in a file each, as lbd/agent.toml has it.
const (
	loadFile  = "load"
	loadUsual = "0.3"
	loadIdle  = "0" // below the service's threshold by as much as there is
	loadAbove = "2" // above it by as much as counts

	shedEnough = 0.3 // part of the users, by each server
)

// say has all applications say a load.
func (f *failures) say(load string) error {
	for _, s := range f.servers {
		if err := f.lab.WriteFile(s, loadFile, []byte(load+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// overload gives all servers more to do than the service allows, by their applications' word: each refuses new connections of some
// users, and serves what it has.
func (f *failures) overload() failure {
	return failure{
		what: "all servers: more to do than they can bear", sheds: true,
		act:   func(context.Context) error { return f.say(loadAbove) },
		while: f.checkShedding,
		mend: func(ctx context.Context) error {
			if err := f.say(loadIdle); err != nil {
				return err
			}
			if err := f.awaitShed(ctx, func(ratio float64) bool { return ratio == 0 }); err != nil {
				return err
			}
			return f.say(loadUsual)
		},
	}
}

// awaitShed waits until all servers refuse a part of the users that is as wanted.
func (f *failures) awaitShed(ctx context.Context, want func(ratio float64) bool) error {
	for deadline := time.Now().Add(time.Minute); ; {
		all := true
		var ratios []float64
		for _, s := range f.servers {
			ratio, err := f.metric(ctx, s, "manycast_agent_shed_ratio")
			if err != nil {
				return err
			}
			ratios = append(ratios, ratio)
			all = all && want(ratio)
		}
		switch {
		case all:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("a minute after their load changed servers refuse %.2f of the users", ratios)
		}
		if err := f.watchUntil(ctx, time.Now().Add(250*time.Millisecond)); err != nil {
			return err
		}
	}
}

// checkShedding: some users are refused, at once, counted, and always the same; the others are served, and the connections that the refused
// ones have go on.
func (f *failures) checkShedding(ctx context.Context) error {
	if err := f.awaitShed(ctx, func(ratio float64) bool { return ratio >= shedEnough }); err != nil {
		return err
	}
	before, err := f.shed(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	first, wrong := f.tryAll(ctx)
	if err := f.watchUntil(ctx, began.Add(2*time.Second)); err != nil {
		return err
	}
	again, more := f.tryAll(ctx)
	wrong = append(wrong, more...)
	for u := range first {
		if !again[u] {
			wrong = append(wrong, fmt.Sprintf("%v was refused and is not any more", u))
		}
		if !f.answered(u, began) {
			wrong = append(wrong, fmt.Sprintf("%v has no answers on the connection that it has", u))
		}
	}
	after, err := f.shed(ctx)
	if err != nil {
		return err
	}
	n := len(first)
	f.check("all servers above their limit: some users are refused, at once, and counted; what is served is kept",
		len(wrong) == 0 && n > 0 && n < len(f.users) && after-before >= float64(n+len(again)),
		"%d of %d users, then %d; the servers counted %.0f meanwhile%s", n, len(f.users), len(again), after-before, some(wrong))
	return nil
}

// tryAll opens a connection for each user, and says who was refused, and who was neither refused at once nor served.
func (f *failures) tryAll(ctx context.Context) (refused map[netip.Addr]bool, wrong []string) {
	refused = map[netip.Addr]bool{}
	for _, u := range f.users {
		began := time.Now()
		switch err := f.dial(ctx, u); {
		case errors.Is(err, syscall.ECONNREFUSED) && time.Since(began) <= refusedWithin:
			refused[u] = true
		case err != nil:
			wrong = append(wrong, fmt.Sprintf("%v: %v after %v", u, err, time.Since(began).Round(time.Millisecond)))
		}
	}
	return refused, wrong
}

// answered reports whether a user has had an answer to what it asked since then.
func (f *failures) answered(user netip.Addr, since time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tally.Answered(user, since)
}

// shed are the new connections that all servers have refused so far.
func (f *failures) shed(ctx context.Context) (sum float64, err error) {
	for _, s := range f.servers {
		n, err := f.metric(ctx, s, "manycast_agent_service_refused_total")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// wasRefused reports whether a request failed as its connections were refused.
func wasRefused(e traffic.Event) bool { return strings.HasSuffix(e.Err, "connection refused") }

// A slow server has 3 ms in 100 for its agent and its application together: what others have to wait for is then late by up to a
// tenth of a second, a few heartbeats among it.
const (
	slowQuota  = 3 * time.Millisecond
	slowPeriod = 100 * time.Millisecond
)

// slow lets a server's machine be slow. It goes on answering, late, or is found out and replaced, as its heartbeats are.
func (f *failures) slow(server string) failure {
	return failure{
		what: "server " + server + " slow: 3 of 100 ms of one CPU", victim: server, lives: true, lasts: 5 * time.Second,
		act:  func(context.Context) error { return f.lab.Slow(server, slowQuota, slowPeriod, "agent", "app") },
		mend: func(context.Context) error { return f.lab.Unslow(server) },
	}
}

// alone takes both directors away, with their routers' igmpd: users who need none, as they send to the group, are served on, and servers
// lead. Nobody else is there to be served.
func (f *failures) alone(victim string) []failure {
	byServer := func(name string) bool { return name != "d1" && name != "d2" }
	was := f.web.epoch
	term := uint64(0)
	return []failure{
		{
			what: "director d1 and d2 without power: servers are alone", alone: true, lasts: leaderOut,
			act: func(context.Context) error {
				term = was().Term
				var group errgroup.Group
				for _, d := range []string{"d1", "d2"} {
					group.Go(func() error { return f.lab.KillNode(d) })
				}
				return group.Wait()
			},
			while: func(ctx context.Context) error {
				_, err := f.web.awaitLeader(ctx, byServer)
				return err
			},
		},
		{
			what: "server " + victim + ": power loss, servers are alone", alone: true, goesOn: true, victim: victim, lasts: dead,
			act: func(context.Context) error { return f.lab.KillNode(victim) },
			while: func(ctx context.Context) error {
				if err := f.awaitServers(ctx, f.without(victim), 10*time.Second); err != nil {
					return err
				}
				leader, is := f.web.leads(), f.web.epoch()
				f.check("servers alone lead and serve", byServer(leader) && is.Term > term,
					"term %d of a director, then epoch %v by %s without %s", term, is, leader, victim)
				return nil
			},
			mend: func(ctx context.Context) error { return f.serverBack(ctx, victim) },
		},
	}
}

// letAgentsLead starts all agents anew, as planned, with another configuration.
func (f *failures) letAgentsLead(ctx context.Context) error {
	for _, s := range f.servers {
		if err := f.reconfigure(s, "agent.toml", "enabled = false", "enabled = true"); err != nil {
			return err
		}
		if err := f.lab.Stop(s, "agent"); err != nil {
			return err
		}
		if err := f.start(ctx, s, "agent"); err != nil {
			return err
		}
	}
	return nil
}
