package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/portion"
)

// policies are those that are compared.
var policies = []alloc.Policy{alloc.Equal, alloc.Weighted, policy.Load, policy.LeastConnections, policy.Wanted, policy.Geo}

// allDays runs the same day under each policy.
func allDays(o options) ([]*day, error) {
	slots := alloc.Slots{By: alloc.Suffix, Bits: o.bits}
	mean := o.users / o.servers
	w := newWorld(rand.New(rand.NewPCG(o.seed, 1)), slots, o.users, mean*3/10)
	w.findHosts(max(10, mean/50))
	fmt.Fprintf(o.log, "sim: seed %d: %d users in %d networks, %d addresses with %d users and more\n", o.seed, len(w.users), len(w.networks), len(w.hosts), max(10, mean/50))
	var runs []*run
	for _, p := range policies {
		if !o.only.MatchString(string(p)) {
			continue
		}
		r, err := w.prepare(o, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		runs = append(runs, r)
	}
	days, errs := make([]*day, len(runs)), make([]error, len(runs))
	var all sync.WaitGroup
	for i, r := range runs {
		all.Go(func() {
			if err := r.day(); err != nil {
				errs[i] = fmt.Errorf("%s: %w", r.rules.Policy, err)
				return
			}
			days[i] = r.result()
			fmt.Fprintf(o.log, "sim: %s is done\n", r.rules.Policy)
		})
	}
	all.Wait()
	return days, errors.Join(errs...)
}

// prepare is a policy's day before it begins.
func (w *world) prepare(o options, p alloc.Policy) (*run, error) {
	f := newFleet(rand.New(rand.NewPCG(o.seed, 2)), o.servers, w.peak())
	rules := policy.Rules{Policy: p, Slots: w.slots, Balance: policy.DefaultBalance()}
	rules.Balance.Interval, rules.Balance.Hysteresis = stepSeconds*time.Second, o.hysteresis
	r := newRun(w, f, rules, o)
	switch p {
	case policy.Geo:
		r.rules.Prefixes = w.prefixes(f)
	case policy.Wanted:
		r.wanted = make(map[string][]portion.Portion)
		for _, x := range w.prefixes(f) {
			r.wanted[x.Servers[0]] = append(r.wanted[x.Servers[0]], x.Portion)
		}
	}
	return r, r.rules.Check()
}

// peak is the most traffic of the day.
func (w *world) peak() (most float64) {
	var all sum
	for _, s := range w.traffic {
		all.plus(s)
	}
	for minute := range steps {
		a := active(minute)
		most = max(most, all.at(&a))
	}
	return most
}

// prefixes are networks that go to servers of their own: as many as routers can hold beside the slots, those first that come next to what a
// server has on average.
func (w *world) prefixes(f *fleet) (out []policy.Prefix) {
	const most = 24
	mean := len(w.users) / len(f.servers)
	networks := slices.Clone(w.networks)
	slices.SortStableFunc(networks, func(a, b network) int { return abs(a.users-mean/2) - abs(b.users-mean/2) })
	var fixed []portion.Portion
	for _, n := range networks {
		p := portion.FromPrefix(n.prefix)
		if len(out) == most || n.users > mean || alloc.CheckFixed(w.slots, append(fixed, p)) != nil {
			continue
		}
		fixed = append(fixed, p)
		i := len(out) * len(f.servers) / most
		out = append(out, policy.Prefix{Portion: p, Servers: []string{f.servers[i].Name, f.servers[(i+1)%len(f.servers)].Name}})
	}
	return out
}

func abs(n int) int { return max(n, -n) }
