package membership

import (
	"net/netip"

	"github.com/manycast/manycast/internal/steer"
)

// owners gives every requester its number, 1 to max. A requester keeps its number when it leaves, until numbers run out: then
// one of those that are in no group loses it.
type owners struct {
	max    steer.Owner
	number map[netip.Addr]steer.Owner
	holder map[steer.Owner]netip.Addr
	next   steer.Owner // where the search for a free number begins
}

func newOwners(highest steer.Owner) owners {
	return owners{max: highest, number: make(map[netip.Addr]steer.Owner), holder: make(map[steer.Owner]netip.Addr), next: 1}
}

// get returns the requester's number; false when all numbers are in use.
func (o *owners) get(requester netip.Addr, inUse func(netip.Addr) bool) (steer.Owner, bool) {
	if n, ok := o.number[requester]; ok {
		return n, true
	}
	if len(o.number) >= int(o.max) && !o.release(inUse) {
		return 0, false
	}
	for n := o.next; ; n = n%o.max + 1 {
		if _, taken := o.holder[n]; !taken {
			o.set(requester, n)
			o.next = n%o.max + 1
			return n, true
		}
	}
}

func (o *owners) set(requester netip.Addr, n steer.Owner) {
	o.number[requester], o.holder[n] = n, requester
}

func (o *owners) release(inUse func(netip.Addr) bool) bool {
	for requester, n := range o.number {
		if !inUse(requester) {
			delete(o.number, requester)
			delete(o.holder, n)
			return true
		}
	}
	return false
}
