package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
)

const (
	reportMemory = 0.3  // of the last report in the next one: loads are averages
	reportNoise  = 0.01 // standard deviation, part of the load
	hotLeast     = 0.1  // part of its server's load from which a portion is reported
	hotMost      = 16
)

// run is one policy's day.
type run struct {
	w      *world
	f      *fleet
	rules  policy.Rules
	r      *rand.Rand
	wanted map[string][]portion.Portion
	noise  noise
	luck   float64

	current alloc.Allocation
	last    policy.Decision
	owner   []int         // of each slot, in the order of the fleet; -1: nobody
	fixed   []fixedPart   // of current
	cut     map[int]*rest // what fixed portions take of slots
	active  [classes]float64
	scale   []float64 // chance, per slot

	users, traffic []float64 // per server, now
	said           []float64 // the last report of traffic
	*measures
}

// fixedPart is a fixed portion with who has it.
type fixedPart struct {
	portion portion.Portion
	owner   int
	pieces  []piece
}

// rest is what fixed portions take of a slot.
type rest struct{ users, traffic sum }

func newRun(w *world, f *fleet, rules policy.Rules, o options) *run {
	n := len(f.servers)
	return &run{
		w: w, f: f, rules: rules, luck: o.chance, r: rand.New(rand.NewPCG(o.seed, 3)), noise: noise{make([]float64, w.slots.Count())},
		scale: make([]float64, w.slots.Count()), users: make([]float64, n), traffic: make([]float64, n), said: make([]float64, n),
		measures: newMeasures(n),
	}
}

// day runs through a day, a minute at a time: failures first, then what leaders do about them, then reports and what a policy makes of them.
func (r *run) day() error {
	for minute := range steps {
		r.active = active(minute)
		r.noise.step(r.r.NormFloat64)
		r.chance()
		if changed := r.f.at(minute); changed || minute == 0 {
			if err := r.decide(nil); err != nil {
				return err
			}
		}
		r.load()
		r.minute(r.f, r.traffic)
		if r.rules.IsFeedback() || r.rules.Policy == policy.Wanted {
			if err := r.decide(r.reports()); err != nil {
				return err
			}
			r.changed(r.f, r.counts())
		}
	}
	return nil
}

// chance finds how much more or less than expected the active users of each slot do.
func (r *run) chance() {
	for s := range r.scale {
		expected := r.w.traffic[s].at(&r.active)
		if expected <= 0 {
			r.scale[s] = 0
			continue
		}
		level := expected / max(r.w.traffic[s].all(), 1e-9)
		r.scale[s] = max(0, 1+r.luck*r.noise.deviation[s]*sqrt(r.w.square[s]*level*(1-level))/expected)
	}
}

// load adds up what every server has now.
func (r *run) load() {
	clear(r.users)
	clear(r.traffic)
	for s, o := range r.owner {
		users, traffic := r.left(s)
		r.users[o] += users
		r.traffic[o] += traffic
	}
	for _, f := range r.fixed {
		for _, p := range f.pieces {
			r.users[f.owner] += p.users.at(&r.active) * r.scale[p.slot]
			r.traffic[f.owner] += p.traffic.at(&r.active) * r.scale[p.slot]
		}
	}
}

// left is what a slot has without fixed portions.
func (r *run) left(s int) (users, traffic float64) {
	users, traffic = r.w.count[s].at(&r.active), r.w.traffic[s].at(&r.active)
	if c := r.cut[s]; c != nil {
		users, traffic = users-c.users.at(&r.active), traffic-c.traffic.at(&r.active)
	}
	return users * r.scale[s], traffic * r.scale[s]
}

// reports are what servers say.
func (r *run) reports() map[string]alloc.Load {
	loads := make(map[string]alloc.Load, len(r.f.servers))
	hot := r.hot()
	for i, s := range r.f.servers {
		r.said[i] = reportMemory*r.said[i] + (1-reportMemory)*r.traffic[i]
		if !s.Alive {
			r.said[i] = 0
			continue
		}
		l := alloc.Load{
			Connections: int(r.users[i]), CPU: max(0.001, min(1, r.said[i]/r.f.capacity[i]*(1+reportNoise*r.r.NormFloat64()))),
			Wanted: r.wanted[s.Name], Hot: hot[i],
		}
		loads[s.Name] = l
	}
	return loads
}

// hot are the portions with a good part of their servers' load: addresses with many users, slots, fixed portions.
func (r *run) hot() [][]alloc.Hot {
	out := make([][]alloc.Hot, len(r.f.servers))
	if !r.rules.IsFeedback() {
		return out
	}
	add := func(server int, p portion.Portion, traffic float64) {
		if share := traffic / r.traffic[server]; share >= hotLeast {
			out[server] = append(out[server], alloc.Hot{Portion: p, Share: min(share, 1)})
		}
	}
	for s, o := range r.owner {
		_, traffic := r.left(s)
		add(o, r.w.slots.Portion(s), traffic)
	}
	for _, h := range r.w.hosts {
		add(r.holder(h), portion.Host(h.addr), h.traffic.at(&r.active)*r.scale[h.slot])
	}
	for _, f := range r.fixed {
		if !f.portion.IsHost() {
			n := 0.0
			for _, p := range f.pieces {
				n += p.traffic.at(&r.active) * r.scale[p.slot]
			}
			add(f.owner, f.portion, n)
		}
	}
	for i := range out {
		slices.SortStableFunc(out[i], func(a, b alloc.Hot) int { return cmp.Compare(b.Share, a.Share) })
		out[i] = out[i][:min(len(out[i]), hotMost)]
	}
	return out
}

func (r *run) holder(h host) int {
	for _, f := range r.fixed {
		if f.portion.Contains(h.addr) {
			return f.owner
		}
	}
	return r.owner[h.slot]
}

// decide is what a leader does: because of those who come and go where there are no loads, else because of loads.
func (r *run) decide(loads map[string]alloc.Load) error {
	d := policy.Decide(policy.Input{Rules: r.rules, Servers: r.f.servers, Loads: loads, Current: r.current, Due: loads != nil})
	if loads != nil && slices.Equal(d.Servers, r.last.Servers) && slices.Equal(d.Fixed, r.last.Fixed) {
		return nil
	}
	r.last = d
	want := d.Want(r.rules)
	want.Epoch = epoch.Epoch{Term: 1, Number: r.current.Epoch.Number + 1}
	next, move, err := alloc.Next(r.current, want)
	if err != nil {
		return fmt.Errorf("epoch %v: %w", want.Epoch, err)
	}
	if next.Same(r.current) {
		return nil
	}
	if err := next.Check(); err != nil {
		return err
	}
	users, all := r.take(next)
	if next.Epoch.Number > 1 {
		r.moved(move, users, all, loads != nil)
	}
	return nil
}

// take makes the allocation the current one and counts the active users who get another server by it.
func (r *run) take(next alloc.Allocation) (moved, all float64) {
	was, wasFixed := r.owner, r.fixed
	at := make(map[string]int, len(r.f.servers))
	for i, s := range r.f.servers {
		at[s.Name] = i
	}
	r.current, r.owner, r.fixed, r.cut = next, make([]int, r.w.slots.Count()), nil, map[int]*rest{}
	for s := range r.owner {
		r.owner[s] = at[next.OwnerOf(s)]
	}
	for i, p := range next.Fixed {
		f := fixedPart{portion: p, owner: at[next.OwnerOf(r.w.slots.Count()+i)]}
		if k := slices.IndexFunc(wasFixed, func(f fixedPart) bool { return f.portion == p }); k >= 0 {
			f.pieces = wasFixed[k].pieces
		} else {
			f.pieces = r.w.pieces(p)
		}
		for _, c := range f.pieces {
			if r.cut[c.slot] == nil {
				r.cut[c.slot] = &rest{}
			}
			r.cut[c.slot].users.plus(c.users)
			r.cut[c.slot].traffic.plus(c.traffic)
		}
		r.fixed = append(r.fixed, f)
	}
	for s := range r.owner {
		all += r.w.count[s].at(&r.active)
	}
	if was == nil {
		return 0, all
	}
	return r.countMoved(was, wasFixed), all
}

// countMoved is exact but where a fixed portion is cut anew.
func (r *run) countMoved(was []int, wasFixed []fixedPart) (moved float64) {
	for s, o := range r.owner {
		if was[s] != o {
			n := r.w.count[s].at(&r.active)
			if c := r.cut[s]; c != nil {
				n -= c.users.at(&r.active)
			}
			moved += max(n, 0)
		}
	}
	count := func(f fixedPart, others []fixedPart, slots []int) {
		k := slices.IndexFunc(others, func(o fixedPart) bool { return o.portion == f.portion })
		for _, p := range f.pieces {
			other := slots[p.slot]
			if k >= 0 {
				other = others[k].owner
			}
			if other != f.owner {
				moved += p.users.at(&r.active)
			}
		}
	}
	for _, f := range r.fixed {
		count(f, wasFixed, was)
	}
	for _, f := range wasFixed {
		if !slices.ContainsFunc(r.fixed, func(o fixedPart) bool { return o.portion == f.portion }) {
			count(f, nil, r.owner)
		}
	}
	return moved
}

// counts are the slots of each server.
func (r *run) counts() []int {
	n := make([]int, len(r.f.servers))
	for _, o := range r.owner {
		n[o]++
	}
	return n
}
