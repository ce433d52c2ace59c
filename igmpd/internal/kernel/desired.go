package kernel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
	"github.com/manycast/manycast/internal/steer"
)

// desired is a State in the kernel's terms.
type desired struct {
	tables map[uint32][]mroute.Entry // entries that are always there, by table; the public table is always a key
	demand resolver                  // entries of the public table that are made on upcalls
	plans  map[netip.Addr]*steer.Plan
	ports  map[port]bool        // where the classifier takes private groups' packets from
	exits  map[steer.Owner]exit // where they leave
}

// port is a private group at an interface that its packets are accepted from.
type port struct {
	group netip.Addr
	name  string
}

// exit is the interface of an owner, empty where its groups differ in it: then the owner's table alone knows.
type exit struct{ name string }

// compiler turns a State into a desired. Pieces that cannot be are left out and told in errs.
type compiler struct {
	config   Config
	declared map[string]bool
	vifs     map[string]int // of the declared interfaces that exist
	all      mroute.VIFs
	want     desired
	errs     []error
}

func compile(s State, config Config, vifs map[string]int) (desired, error) {
	c := compiler{config: config, declared: map[string]bool{}, vifs: vifs, want: desired{
		tables: map[uint32][]mroute.Entry{config.publicTable(): nil},
		demand: newResolver(),
		plans:  map[netip.Addr]*steer.Plan{},
		ports:  map[port]bool{},
		exits:  map[steer.Owner]exit{},
	}}
	for _, i := range s.Interfaces {
		c.declared[i.Name] = true
	}
	for _, n := range vifs {
		c.all |= mroute.VIF(n)
	}
	for _, group := range slices.SortedFunc(maps.Keys(s.Private), netip.Addr.Compare) {
		c.private(group, s.Private[group])
	}
	for _, r := range s.Public {
		c.route(r)
	}
	return c.want, errors.Join(c.errs...)
}

func (c *compiler) fail(format string, a ...any) { c.errs = append(c.errs, fmt.Errorf(format, a...)) }

// vif returns an interface's number. One that does not exist at the moment is told once, by whoever made c.vifs.
func (c *compiler) vif(what any, name string) (int, bool) {
	if !c.declared[name] {
		c.fail("group %v: interface %q is not among the router's interfaces", what, name)
		return 0, false
	}
	n, ok := c.vifs[name]
	return n, ok
}

func (c *compiler) set(what any, names []string) mroute.VIFs {
	var v mroute.VIFs
	for _, name := range names {
		if n, ok := c.vif(what, name); ok {
			v |= mroute.VIF(n)
		}
	}
	return v
}

func (c *compiler) group(group netip.Addr) bool {
	if !group.Is4() || !group.IsMulticast() {
		c.fail("group %v: not an IPv4 multicast address", group)
		return false
	}
	return true
}

func (c *compiler) private(group netip.Addr, p Private) {
	if !c.group(group) {
		return
	}
	in := c.set(group, p.In)
	if c.config.Mode == ModeSource {
		owners := map[steer.Owner]int{}
		for owner, name := range p.Owners {
			if n, ok := c.vif(group, name); ok {
				owners[owner] = n
			}
		}
		c.want.demand.private[group] = demandPrivate{in: in, plan: p.Plan, owners: owners}
		return
	}
	c.want.plans[group] = p.Plan
	for _, name := range p.In {
		if c.declared[name] {
			c.want.ports[port{group, name}] = true
		}
	}
	for _, owner := range slices.Sorted(maps.Keys(p.Owners)) {
		c.owner(group, in, owner, p.Owners[owner])
	}
}

// owner adds the (*,G) entries of a group to the owner's table: one per interface that packets come from.
func (c *compiler) owner(group netip.Addr, in mroute.VIFs, owner steer.Owner, name string) {
	if owner == 0 || owner > c.config.OwnersMax() {
		c.fail("group %v: owner %d does not fit mark_mask %#x, which has room for 1 to %d", group, owner, c.config.MarkMask, c.config.OwnersMax())
		return
	}
	out, ok := c.vif(group, name)
	if !ok {
		return
	}
	if e, known := c.want.exits[owner]; known && e.name != name {
		c.want.exits[owner] = exit{}
	} else {
		c.want.exits[owner] = exit{name}
	}
	table := c.config.TableBase + uint32(owner)
	entries := c.want.tables[table]
	for n := range in.All() {
		if n != out {
			entries = append(entries, mroute.Entry{Group: group, Parent: n, Out: mroute.VIF(n) | mroute.VIF(out)})
		}
	}
	c.want.tables[table] = entries
}

func (c *compiler) route(r Route) {
	if !c.group(r.Group) {
		return
	}
	if r.Source.IsValid() && !r.Source.Is4() {
		c.fail("group %v: source %v is not an IPv4 address", r.Group, r.Source)
		return
	}
	key := sg{r.Source, r.Group}
	if _, twice := c.want.demand.routes[key]; twice || c.want.demand.static[key] {
		c.fail("group %v: two routes for source %v", r.Group, r.Source)
		return
	}
	in, out := c.set(r.Group, r.In), c.set(r.Group, r.Out)
	if !standing(r.Source, in, out) {
		c.want.demand.routes[key] = demandRoute{in, out}
		return
	}
	c.want.demand.static[key] = true
	public := c.config.publicTable()
	if r.Source.IsValid() {
		parent := in.First()
		c.want.tables[public] = append(c.want.tables[public], mroute.Entry{Source: r.Source, Group: r.Group, Parent: parent, Out: out &^ mroute.VIF(parent)})
		return
	}
	for n := range in.All() {
		c.want.tables[public] = append(c.want.tables[public], mroute.Entry{Group: r.Group, Parent: n, Out: out | mroute.VIF(n)})
	}
	// What comes in elsewhere is dropped by an entry, too, so that the kernel does not ask about it.
	for n := range (c.all &^ (in | out)).All() {
		c.want.tables[public] = append(c.want.tables[public], mroute.Entry{Group: r.Group, Parent: n, Out: mroute.VIF(n)})
	}
}

// standing says whether entries made beforehand express a route. A (S,G) entry has one parent. Of several (*,G) entries the
// kernel takes the first whose thresholds hold the interface of arrival, and drops the packet if that is not its parent: so an
// interface must not be in two of them.
func standing(source netip.Addr, in, out mroute.VIFs) bool {
	if source.IsValid() {
		return in.Count() == 1
	}
	return in.Count() <= 1 || in&out == 0
}
