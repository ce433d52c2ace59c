package servicekey

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/internal/records"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
)

// Update is what is known of a VIP's service from now on, for movement.Follower.Set. The follower knows services by their VIPs.
type Update struct {
	VIP     netip.Addr
	Name    string // in the DNS; empty: there is no record
	Service movement.Service
}

// ServiceOf is the name by which the follower knows a VIP's service.
func ServiceOf(vip netip.Addr) string { return vip.String() }

// Book is what is known of the services that this host has connections to: fetched once, kept for the TTL and no longer, renewed
// before its end. It is pure and belongs to one goroutine: Wanted are its questions, Answer takes what came of them, and Tick is due
// every second.
type Book struct {
	cache *records.Cache
	used  map[netip.Addr]*known
}

// known is what was told of a VIP last.
type known struct {
	users  int
	record record.Record
	until  time.Time // zero: nothing was told
	none   bool      // that there is none was told
}

// NewBook makes an empty book that keeps nothing longer than ttlMax.
func NewBook(ttlMax time.Duration) *Book {
	return &Book{cache: records.NewCache(ttlMax), used: map[netip.Addr]*known{}}
}

// Use looks a VIP up, from now on until Unuse was called as often.
func (b *Book) Use(now time.Time, vip netip.Addr) []Update {
	k := b.used[vip]
	if k == nil {
		k = &known{}
		b.used[vip] = k
	}
	k.users++
	return b.look(now, nil, vip, k)
}

// Unuse ends a Use.
func (b *Book) Unuse(vip netip.Addr) {
	if k := b.used[vip]; k != nil {
		if k.users--; k.users == 0 {
			delete(b.used, vip)
		}
	}
}

// Ask is the follower's: it lacks a key, or all of them. Of a record that lacks a key it is asked again, at most every few seconds.
func (b *Book) Ask(now time.Time, vip netip.Addr) []Update {
	k := b.used[vip]
	if k == nil {
		return nil
	}
	if _, _, status := b.cache.Record(now, vip); status == records.Found {
		b.cache.Lacks(now, vip)
	}
	return b.look(now, nil, vip, k)
}

// Answer takes an answer to one of Wanted.
func (b *Book) Answer(now time.Time, a records.Answer) []Update {
	b.cache.Put(now, a)
	k := b.used[a.Address]
	if k == nil {
		return nil
	}
	return b.look(now, nil, a.Address, k)
}

// Tick renews what is about to be over.
func (b *Book) Tick(now time.Time) []Update {
	var out []Update
	for vip, k := range b.used {
		out = b.look(now, out, vip, k)
	}
	b.cache.Tick(now)
	slices.SortFunc(out, func(a, c Update) int { return a.VIP.Compare(c.VIP) })
	return out
}

// Wanted returns the questions to be asked, each once until it is answered.
func (b *Book) Wanted() []records.Question { return b.cache.Wanted() }

// look tells what has changed of a VIP. While nobody can say, what was told holds until its own end, which the follower minds.
func (b *Book) look(now time.Time, out []Update, vip netip.Addr, k *known) []Update {
	r, until, status := b.cache.Record(now, vip)
	switch status {
	case records.Unknown:
		return out
	case records.None:
		if k.none {
			return out
		}
		*k = known{users: k.users, none: true}
		return append(out, Update{VIP: vip, Service: movement.Service{Until: now}})
	case records.Found:
	}
	if !r.Until.IsZero() && r.Until.Before(until) {
		until = r.Until
	}
	if until.Equal(k.until) && r.Equal(k.record) {
		return out
	}
	*k = known{users: k.users, record: r, until: until}
	return append(out, Update{vip, r.Name, movement.Service{Keys: r.Keys, Destinations: r.Destinations, Until: until}})
}
