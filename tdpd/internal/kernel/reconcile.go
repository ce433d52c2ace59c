package kernel

import (
	"slices"
	"sync"
)

// change is one step towards the wanted state.
type change struct {
	verb verb
	id   id
	hops []Hop // canonical; none to remove
}

type verb uint8

const (
	add     verb = iota // fails where somebody else has it
	replace             // what is ours, in one step
	remove              // what is ours
)

// tables is what a reconciler needs of the place where entries are.
type tables interface {
	// read returns the entries that are ours, hops canonical, and the labels of others' entries.
	read() (have map[id][]Hop, others []uint32, err error)
	// apply makes changes in their order. failed is by index. With err the rest is in doubt.
	apply(changes []change) (failed map[int]error, err error)
}

// reconciler keeps account of what is there, and makes it what is wanted.
type reconciler struct {
	tables
	known  bool // the account is true
	have   map[id][]Hop
	others []uint32 // labels
	used   interfaces
}

// interfaces are those that entries have, or were to have: what happens to others is nothing to them. It may be asked by others than its
// owner.
type interfaces struct {
	mu  sync.Mutex
	all map[int]bool
}

func (i *interfaces) add(hops []Hop) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, h := range hops {
		i.all[h.Interface] = true
	}
}

func (i *interfaces) has(index int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.all[index]
}

// reset begins anew with these.
func (i *interfaces) reset(have map[id][]Hop) {
	i.mu.Lock()
	i.all = map[int]bool{}
	i.mu.Unlock()
	for _, hops := range have {
		i.add(hops)
	}
}

// know reads the tables where the account may not be true.
func (r *reconciler) know() error {
	if r.known {
		return nil
	}
	have, others, err := r.read()
	if err != nil {
		return err
	}
	r.have, r.others, r.known = have, others, true
	r.used.reset(have)
	return nil
}

// set makes want all that is there, except that it leaves alone what is in keep, entries that could not be understood.
func (r *reconciler) set(want map[id][]Hop, keep map[id]bool) (Failures, error) {
	if err := r.know(); err != nil {
		return nil, err
	}
	changes := r.changes(want)
	for i := range r.have {
		if _, wanted := want[i]; !wanted && !keep[i] {
			changes = append(changes, change{remove, i, nil})
		}
	}
	return r.carryOut(changes)
}

// update makes want true, and removes entries.
func (r *reconciler) update(want map[id][]Hop, gone []id) (Failures, error) {
	if err := r.know(); err != nil {
		return nil, err
	}
	changes := r.changes(want)
	for _, i := range gone {
		if _, there := r.have[i]; there {
			changes = append(changes, change{remove, i, nil})
		}
	}
	return r.carryOut(changes)
}

// changes returns what is to be added and replaced, labels first: a packet that gets one by a prefix may come back here.
func (r *reconciler) changes(want map[id][]Hop) (changes []change) {
	var prefixes []change
	for i, hops := range want {
		c := change{add, i, hops}
		if have, there := r.have[i]; there {
			if EqualHops(have, hops) {
				continue
			}
			c.verb = replace
		}
		if i.prefix.IsValid() {
			prefixes = append(prefixes, c)
		} else {
			changes = append(changes, c)
		}
	}
	return append(changes, prefixes...)
}

func (r *reconciler) carryOut(changes []change) (failures Failures, err error) {
	if len(changes) == 0 {
		return nil, nil
	}
	for _, c := range changes {
		r.used.add(c.hops)
	}
	failed, err := r.apply(changes)
	r.known = err == nil
	for n, c := range changes {
		switch e := failed[n]; {
		case e != nil:
			failures = append(failures, Failure{c.id.String(), c.id.label, e})
		case c.verb == remove:
			delete(r.have, c.id)
		default:
			r.have[c.id] = c.hops
		}
	}
	slices.SortFunc(failures, func(a, b Failure) int { return compareNames(a.Entry, b.Entry) })
	return failures, err
}
