// sim is a day of a service with millions of users and a thousand servers: the policies' and the allocator's real code, and the real encodings of
// what they say, against a world that is made up (docs/simulation.md). The same seed gives the same day.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/portion"
)

// options of a simulation.
type options struct {
	users, servers, bits int
	seed                 uint64
	hysteresis           float64
	chance               float64        // 1: users come and go by chance; 0: of each class as many as expected are active everywhere
	only                 *regexp.Regexp // of policies
	log                  io.Writer
}

func main() {
	o := options{log: os.Stderr}
	flag.IntVar(&o.users, "users", 10_000_000, "users")
	flag.IntVar(&o.servers, "servers", 1000, "servers")
	flag.IntVar(&o.bits, "bits", 16, "bits of slots by suffix")
	flag.Uint64Var(&o.seed, "seed", 1, "of all chance")
	flag.Float64Var(&o.chance, "chance", 1, "how much of it there is in who is active, in standard deviations of real life")
	flag.Float64Var(&o.hysteresis, "hysteresis", policy.DefaultBalance().Hysteresis, "of the feedback policies")
	only := flag.String("policies", "", "regular expression: run only those policies")
	out := flag.String("o", "docs/sim", "directory for results.json and the plots")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		err = simulate(o, os.Stdout, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func simulate(o options, w io.Writer, dir string) error {
	days, err := allDays(o)
	if err != nil {
		return err
	}
	printDays(w, o, days)
	costs, err := allCosts(o)
	if err != nil {
		return err
	}
	printCosts(w, costs)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(struct {
		Users, Servers, SlotBits int
		Seed                     uint64
		Days                     []*day
		Epochs                   []cost
	}{o.users, o.servers, o.bits, o.seed, days, costs}, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return plot(dir, days, costs)
}

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

// costBits are the slots that epochs are measured with.
var costBits = []int{8, 12, 14, 16}

// allCosts are those of epochs of more and more servers and slots.
func allCosts(o options) (costs []cost, err error) {
	for _, bits := range costBits {
		for _, servers := range []int{3, 5, 10, 30, 100, 300, 1000, 3000, alloc.MaxServers} {
			if servers > 1<<bits || servers > 4*o.servers {
				continue
			}
			c, err := measureCost(servers, bits)
			if err != nil {
				return nil, fmt.Errorf("%d servers, 2^%d slots: %w", servers, bits, err)
			}
			costs = append(costs, c)
		}
	}
	return costs, nil
}

func printDays(w io.Writer, o options, days []*day) {
	fmt.Fprintf(w, "seed %d: %d users, %d servers, %d slots, one day, a minute at a time\n\n", o.seed, o.users, o.servers, 1<<o.bits)
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "policy\tmax/mean\tp99/mean\tdeviation\tepochs\tspace moved\tneeded\tby reports\tusers moved\tturns a server\tmost\track\track back\tsurge\tstep\t")
	for _, d := range days {
		fmt.Fprintf(tw, "%s\t%.2f\t%.2f\t%.3f\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t%.2f\t%d\t%s\t%s\t%s\t%s\t\n", d.Policy, d.Highest, d.P99, d.Deviation, d.Epochs, d.Moved, d.Needed, d.Followed,
			d.UsersMoved, d.TurnsMean, d.TurnsMost, minutes(d.Rack), minutes(d.RackBack), minutes(d.Surge), minutes(d.Step))
	}
	tw.Flush()
	fmt.Fprintln(w)
}

func minutes(n int) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n, " min")
}

func printCosts(w io.Writer, costs []cost) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "servers\tslots\tannounce kB\tcommit kB\tframes\tframes kB\tannounce ms\tjoins kB\tbytes a server\tparts\tportions\tNext ms\t")
	for _, c := range costs {
		fmt.Fprintf(tw, "%d\t%d\t%.1f\t%.1f\t%d\t%.1f\t%.0f\t%.1f\t%.0f\t%d\t%d\t%.1f\t%s\n", c.Servers, 1<<c.SlotBits, float64(c.Announce)/1e3, float64(c.Commit)/1e3, c.Frames,
			float64(c.Bytes)/1e3, c.Spread, float64(c.Joins)/1e3, c.JoinMean, c.JoinParts, c.Portions, c.Next, c.TooLarge)
	}
	tw.Flush()
}
