package fastpath

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/neighbors"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// programs are a Fastpath's state, and what a test has in its place.
type programs interface {
	SetServices(refuse map[netip.Addr]vips.Refusal, tell map[netip.Addr]bool) error
	SetUsers(plans map[netip.Addr]*steer.Plan, split map[netip.Addr]vips.Split, trees map[steer.Owner][]Hop) error
	SetLabels(labels map[uint32][]Hop) error
	UpdateLabels(labels map[uint32][]Hop) error
	Labels() map[uint32][]kernel.Hop
	SetMACs(macs map[int]net.HardwareAddr) error
	Attach(ifindex int, side Side) error
	Detach(ifindex int) error
	Prune() error
	Counters() (Counters, error)
	Listen() (Listener, error)
	Close(keep bool) error
}

// Backend is a kernel.Backend with a fast path in front of its tables: what comes in with a label, and what is for a VIP, is sent on by the
// programs where the neighbor's Ethernet address is known, and by the tables where it is not. What goes into tunnels the tables do not
// hear of: they have none. Its methods may be called from several goroutines.
type Backend struct {
	kernel.Backend
	fast      programs
	neighbors neighbors.Source
	sides     map[string]Side // of interfaces, by name
	tunnelMTU int             // of what leaves in UDP, 0: that of the link
	log       *slog.Logger
	tells     Listener
	tagless   chan []vips.Tagless
	done      chan struct{}
	over      sync.WaitGroup

	mu     sync.Mutex
	labels map[uint32][]kernel.Hop
	users  *vips.Users // nil: nobody has said yet, and what a process before has left goes on
	table  neighbors.Table
	ready  bool // the first table has come: until then what a process before has left goes on
	on     map[int]bool
	uses   map[neighbors.Key]int // how many hops of labels and trees lead to each neighbor
	asked  bool                  // for those, and no others
}

// NewBackend puts a fast path in front of tables, on interfaces by their names: labels are what the tables have, and what the programs
// have into tunnels. tunnelMTU is how long a packet in UDP may be at most; 0: as its link says. It closes all of them.
func NewBackend(tables kernel.Backend, fast programs, n neighbors.Source, sides map[string]Side, tunnelMTU int, log *slog.Logger) (*Backend, error) {
	b := &Backend{
		Backend: tables, fast: fast, neighbors: n, sides: sides, tunnelMTU: tunnelMTU, log: log, done: make(chan struct{}), tagless: make(chan []vips.Tagless),
		on: map[int]bool{}, uses: map[neighbors.Key]int{},
	}
	entries, err := b.Entries()
	if err != nil {
		return nil, err
	}
	b.setLabels(entries.Labels)
	if b.tells, err = fast.Listen(); err != nil {
		return nil, err
	}
	b.over.Go(b.follow)
	b.over.Go(b.listen)
	return b, nil
}

// Entries implements kernel.Backend.
func (b *Backend) Entries() (kernel.State, error) {
	entries, err := b.Backend.Entries()
	if err != nil {
		return kernel.State{}, err
	}
	entries.Labels = maps.Clone(entries.Labels)
	for label, hops := range b.fast.Labels() {
		if slices.ContainsFunc(hops, tunnels) {
			entries.Labels[label] = hops
		}
	}
	return entries, nil
}

func tunnels(h kernel.Hop) bool { return h.Tunnel.IsValid() }

// native is what tables can do of it, nil of what they can do nothing of.
func native[K comparable](all map[K][]kernel.Hop) map[K][]kernel.Hop {
	out := make(map[K][]kernel.Hop, len(all))
	for key, hops := range all {
		if slices.ContainsFunc(hops, tunnels) {
			hops = slices.DeleteFunc(slices.Clone(hops), tunnels)
		}
		out[key] = hops
	}
	return out
}

func some[K comparable](all map[K][]kernel.Hop) map[K][]kernel.Hop {
	maps.DeleteFunc(all, func(_ K, hops []kernel.Hop) bool { return len(hops) == 0 })
	return all
}

// follow takes what is new of neighbors.
func (b *Backend) follow() {
	for {
		select {
		case <-b.done:
			return
		case t := <-b.neighbors.Tables():
			b.mu.Lock()
			first := !b.ready
			b.table, b.ready = t, true
			err := errors.Join(b.apply(), b.attach())
			if first {
				err = errors.Join(err, b.fast.Prune())
			}
			b.mu.Unlock()
			if err != nil {
				b.log.Error("fast path", "err", err)
			}
		}
	}
}

// attach brings the programs to the interfaces that are there. The caller holds mu.
func (b *Backend) attach() error {
	var errs []error
	for index := range b.on {
		if _, wanted := b.sides[b.table.Links[index].Name]; !wanted {
			delete(b.on, index)
			errs = append(errs, b.fast.Detach(index))
		}
	}
	macs := map[int]net.HardwareAddr{}
	for index, l := range b.table.Links {
		if _, wanted := b.sides[l.Name]; wanted {
			macs[index] = l.MAC
		}
	}
	errs = append(errs, b.fast.SetMACs(macs))
	for index, l := range b.table.Links {
		side, wanted := b.sides[l.Name]
		if !wanted || b.on[index] {
			continue
		}
		if err := b.fast.Attach(index, side); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", l.Name, err))
			continue
		}
		b.on[index] = true
		b.log.Info("fast path", "interface", l.Name)
	}
	return errors.Join(errs...)
}

// Set implements kernel.Backend.
func (b *Backend) Set(s kernel.State) error {
	err := b.Backend.Set(kernel.State{Interfaces: s.Interfaces, Labels: some(native(s.Labels)), Prefixes: some(native(s.Prefixes))})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.setLabels(s.Labels)
	return errors.Join(err, b.apply())
}

// Update implements kernel.Backend.
func (b *Backend) Update(c kernel.Changes) error {
	err := b.Backend.Update(kernel.Changes{Labels: native(c.Labels), Prefixes: native(c.Prefixes)})
	if len(c.Labels) == 0 {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := make(map[uint32][]Hop, len(c.Labels))
	for label, hops := range c.Labels {
		b.use(b.labels[label], -1)
		b.use(hops, 1)
		if changed[label] = b.hops(hops); len(hops) == 0 {
			delete(b.labels, label)
		} else {
			b.labels[label] = hops
		}
	}
	b.ask()
	if !b.ready {
		return err
	}
	return errors.Join(err, b.fast.UpdateLabels(changed))
}

// Steer makes these what users are steered by. Labels are not looked at: users of a server that fails are not to wait for them.
func (b *Backend) Steer(u vips.Users) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users != nil {
		b.useTrees(*b.users, -1)
	}
	b.useTrees(u, 1)
	b.users = &u
	b.ask()
	if !b.ready {
		return nil
	}
	return b.applyUsers()
}

// Counters are what the programs have done, by name; also what those of a process before did.
func (b *Backend) Counters() (map[string]uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, err := b.fast.Counters()
	if err != nil {
		return nil, fmt.Errorf("fast path: %w", err)
	}
	return c.ByName(), nil
}

// Close implements kernel.Backend.
func (b *Backend) Close(keep bool) error {
	close(b.done)
	err := b.tells.Close()
	b.over.Wait()
	return errors.Join(err, b.fast.Close(keep), b.neighbors.Close(), b.Backend.Close(keep))
}

// setLabels makes these the labels that there are. The caller holds mu.
func (b *Backend) setLabels(labels map[uint32][]kernel.Hop) {
	for _, hops := range b.labels {
		b.use(hops, -1)
	}
	b.labels = maps.Clone(labels)
	if b.labels == nil {
		b.labels = map[uint32][]kernel.Hop{}
	}
	for _, hops := range b.labels {
		b.use(hops, 1)
	}
}

// apply brings all of it into the programs, and asks for the neighbors that it needs. The caller holds mu.
func (b *Backend) apply() error {
	b.ask()
	if !b.ready {
		return nil
	}
	labels := make(map[uint32][]Hop, len(b.labels))
	for label, hops := range b.labels {
		labels[label] = b.hops(hops)
	}
	err := b.fast.SetLabels(labels)
	if b.users != nil {
		err = errors.Join(err, b.applyUsers())
	}
	return err
}

// applyUsers brings in what users are steered by. The caller holds mu.
func (b *Backend) applyUsers() error {
	trees := make(map[steer.Owner][]Hop, len(b.users.Trees))
	for owner, hops := range b.users.Trees {
		trees[owner] = b.hops(hops)
	}
	return errors.Join(b.fast.SetServices(b.users.Refuse, b.users.Tell), b.fast.SetUsers(b.users.VIPs, b.users.Split, trees)) // before there are such users
}

// use notes that n more hops lead to these neighbors. The caller holds mu.
func (b *Backend) use(hops []kernel.Hop, n int) {
	for _, h := range hops {
		if !isFast(h) {
			continue
		}
		key := neighbors.Key{Interface: h.Interface, Address: h.Via}
		was := b.uses[key]
		if b.uses[key] += n; b.uses[key] == 0 {
			delete(b.uses, key)
		}
		b.asked = b.asked && was != 0 && was+n != 0
	}
}

func (b *Backend) useTrees(u vips.Users, n int) {
	for _, hops := range u.Trees {
		b.use(hops, n)
	}
}

// ask asks for the neighbors that are used, where they are others now. The caller holds mu.
func (b *Backend) ask() {
	if b.asked {
		return
	}
	b.asked = true
	b.neighbors.Want(slices.SortedFunc(maps.Keys(b.uses), func(x, y neighbors.Key) int {
		return cmp.Or(x.Interface-y.Interface, x.Address.Compare(y.Address))
	}))
}

func (b *Backend) hops(list []kernel.Hop) []Hop {
	out := make([]Hop, len(list))
	for i, h := range list {
		out[i] = b.hop(h)
	}
	return out
}

// isFast says whether the programs can send by h, which is to a neighbor: not where it has several labels to push.
func isFast(h kernel.Hop) bool {
	return h.Via.IsValid() && len(h.Labels) <= 1 && (!h.Tunnel.IsValid() || len(h.Labels) == 1)
}

// hop is how the programs send what is to leave by h: not at all where they cannot, or where that leaves by what is no Ethernet or to
// whom is not known yet.
func (b *Backend) hop(h kernel.Hop) Hop {
	if !h.Via.IsValid() && h.Interface > 0 && len(h.Labels) == 0 {
		return Hop{How: Local, Interface: h.Interface}
	}
	if !isFast(h) {
		return Hop{How: Kernel}
	}
	l, ok := b.table.Links[h.Interface]
	to := b.table.Neighbors[neighbors.Key{Interface: h.Interface, Address: h.Via}]
	if !ok || !l.Up || to == nil {
		return Hop{How: Kernel, Next: h}
	}
	out := Hop{Interface: h.Interface, How: Bare, To: to, From: l.MAC, MTU: min(l.MTU, 65535), Next: h}
	if len(h.Labels) == 1 {
		out.How, out.Label = Label, h.Labels[0]
	}
	if h.Tunnel.IsValid() {
		out.How, out.Tunnel = UDP, h.Tunnel
		if b.tunnelMTU > 0 {
			out.MTU = min(out.MTU, b.tunnelMTU)
		}
	}
	return out
}
