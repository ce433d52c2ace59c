package membership

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
)

// MemberView is a requester's set as an operator sees it.
type MemberView struct {
	Group     netip.Addr
	Requester netip.Addr
	Port      string
	Owner     steer.Owner
	Epoch     epoch.Epoch
	KeyID     uint32
	Own       portion.Set
	Standby   portion.Set
	Since     time.Time // accepted as it is
	Expires   time.Time
}

// Members returns all requesters' sets, sorted by group and requester.
func (t *Table) Members() []MemberView {
	var all []MemberView
	for addr, g := range t.private {
		for requester, m := range g.members {
			all = append(all, MemberView{addr, requester, m.port, m.owner, m.epoch, m.keyID, m.own, m.standby, m.since, m.expires})
		}
	}
	slices.SortFunc(all, func(a, b MemberView) int {
		if c := a.Group.Compare(b.Group); c != 0 {
			return c
		}
		return a.Requester.Compare(b.Requester)
	})
	return all
}

// PrivateGroups returns the addresses of all private groups that are known, sorted.
func (t *Table) PrivateGroups() []netip.Addr {
	all := make([]netip.Addr, 0, len(t.private))
	for g := range t.private {
		all = append(all, g)
	}
	return sorted(all)
}

// Term is the highest term that was accepted for a private group.
func (t *Table) Term(addr netip.Addr) uint64 {
	if g := t.private[addr]; g != nil {
		return g.term
	}
	return 0
}

// Querier returns who asks on a port; invalid where nobody does or the port is not there.
func (t *Table) Querier(now time.Time, portName string) netip.Addr {
	p := t.ports[portName]
	switch {
	case p == nil || !p.Members:
		return netip.Addr{}
	case p.querier.is(now):
		return p.Address
	}
	return p.querier.other
}
