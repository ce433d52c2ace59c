package binder

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/pins"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// pinned is what a server pins of a service.
type pinned struct {
	pins.Pins
	revision uint64
	until    time.Time // unless it is said again
}

// setPins takes what a server pins; words are made of it at the next settlePins.
func (w *words) setPins(now time.Time, p pins.Pins, revision uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pins[p.Service] == nil {
		w.pins[p.Service] = map[string]pinned{}
	}
	w.pins[p.Service][p.Server] = pinned{p, revision, now.Add(pins.Expires)}
}

func (w *words) dropPins(service, server string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pins[service], server)
}

// settlePins makes words of pins, of those that hold still.
func (w *words) settlePins(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, servers := range w.pins {
		maps.DeleteFunc(servers, func(_ string, p pinned) bool { return !now.Before(p.until) })
		if len(servers) == 0 {
			delete(w.pins, name)
		}
	}
	w.settle(anyPins)
}

// pinsExpire is when some are over if nobody says them again; zero: never.
func (w *words) pinsExpire() (next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, servers := range w.pins {
		for _, p := range servers {
			if next.IsZero() || p.until.Before(next) {
				next = p.until
			}
		}
	}
	return next
}

// heardOf are the revisions of servers' pins that what is wanted of a service heeds: of an allocation that is yet to come nothing can be said.
func (w *words) heardOf(service string, a allocated) map[string]uint64 {
	out := map[string]uint64{}
	for server, p := range w.pins[service] {
		if !a.Epoch.Less(p.Epoch) || !a.next.Epoch.Less(p.Epoch) {
			out[server] = p.revision
		}
	}
	return out
}

// exception is a user who goes to a server.
type exception struct {
	user    netip.Addr
	server  string
	address netip.Addr
	rank    int // of the server among those that had the user, the latest first
}

// exceptions are the users whom servers pin, each with the latest that had it. A server pins no others: those that it had, by the trail of what
// is allocated, or, where only exceptions are steered, those that it has and is about to lose.
func (w *words) exceptions(s service.Service, a allocated) []exception {
	if !s.Handover.Has(service.Pin) || a.Zero() {
		return nil
	}
	users, all := map[netip.Addr]exception{}, 0
	for server, p := range w.pins[s.Name] {
		all += len(p.Users)
		for _, u := range p.Users {
			x, ok := hadUser(s, a, u, server)
			if was, twice := users[u]; ok && (!twice || x.rank < was.rank) {
				users[u] = x
			}
		}
	}
	if delete(w.counted, s.Name); all > 0 {
		w.counted[s.Name] = pinCount{len(users), all - len(users)}
	}
	return slices.SortedFunc(maps.Values(users), func(x, y exception) int { return x.user.Compare(y.user) })
}

func hadUser(s service.Service, a allocated, user netip.Addr, server string) (exception, bool) {
	if slices.ContainsFunc(s.Split, func(p netip.Prefix) bool { return p.Contains(user) }) {
		return exception{}, false
	}
	of := a.Allocation
	if a.OwnerOf(a.CellOf(user)) == server {
		if of = a.next; of.Zero() || s.Mode == service.Tags {
			return exception{}, false // who is sent there anyway
		}
	}
	hops := of.ChainOf(of.CellOf(user)).Hops
	i := slices.IndexFunc(hops, func(h alloc.Hop) bool { return h.Server == server })
	if i < 0 || !hops[i].Address.IsValid() {
		return exception{}, false
	}
	return exception{user, server, hops[i].Address, i}, true
}

// mostOthers is how many servers that the allocation does not name a binding has room for.
const mostOthers = 1024

// except adds exceptions to a word.
func except(b *tdpdv1.UserBinding, servers []string, all []exception) {
	at := map[string]uint32{}
	for i, name := range servers {
		at[name] = uint32(i)
	}
	others := map[string]netip.Addr{}
	for _, x := range all {
		if _, known := at[x.server]; !known && len(others) < mostOthers {
			others[x.server] = x.address
		}
	}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		at[name] = uint32(len(at))
		b.Others = append(b.Others, &tdpdv1.Other{Name: name, Address: others[name].AsSlice()})
	}
	for _, x := range all {
		if server, ok := at[x.server]; ok {
			user := x.user.As4()
			b.UserAddresses, b.UserServers = append(b.UserAddresses, binary.BigEndian.Uint32(user[:])), append(b.UserServers, server)
		}
	}
}
