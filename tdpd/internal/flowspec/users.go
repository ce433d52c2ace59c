package flowspec

import (
	"net/netip"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/tdpd/internal/steering"
)

// Of are the users of a binding: takes says which servers take those of the allocation's cells, and of exceptions, while servers are as they
// are (steering.Takes).
func Of(b steering.Binding, takes steering.Taken) Users {
	u := Users{Service: b.Service, VIPs: b.VIPs}
	for _, p := range b.Split {
		to := &u.Four
		if p.Addr().Is6() {
			to = &u.Six
		}
		*to = append(*to, Bound{Portion: portion.FromPrefix(p), Why: ByPort})
	}
	for i, e := range b.Users {
		u.Four = append(u.Four, Bound{Portion: portion.Host(e.Address), Server: b.Address(takes.Users[i])})
	}
	if b.UsersOnly || len(takes.Cells) == 0 {
		return u
	}
	slots := b.Allocation.Slots
	for i, p := range b.Allocation.Fixed {
		u.Four = append(u.Four, Bound{Portion: p, Server: b.Address(takes.Cells[slots.Count()+i])})
	}
	if one, ok := same(takes.Cells[:slots.Count()]); ok {
		u.Four = append(u.Four, Bound{Portion: portion.All4(), Server: b.Address(one)})
		u.Six = append(u.Six, Bound{Portion: portion.All6(), Server: b.Address(one)})
		return u
	}
	u.Six = append(u.Six, Bound{Portion: portion.All6(), Why: Hashed})
	u.Four = append(u.Four, bySlot(b, slots, takes.Cells)...)
	return u
}

// bySlot are the slots' users. Slots by the last bits of addresses are no prefixes.
func bySlot(b steering.Binding, slots alloc.Slots, cells []string) []Bound {
	out := make([]Bound, slots.Count())
	addresses := map[string]netip.Addr{}
	for slot := range out {
		name := cells[slot]
		a, known := addresses[name]
		if !known {
			a = b.Address(name)
			addresses[name] = a
		}
		out[slot] = Bound{Portion: slots.Portion(slot), Server: a}
	}
	return out
}

func same(names []string) (string, bool) {
	for _, n := range names {
		if n != names[0] {
			return "", false
		}
	}
	return names[0], true
}
