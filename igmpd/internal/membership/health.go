package membership

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/steer"
)

// Health is how the control channel finds a requester. Without a word of it everybody is available.
type Health uint8

// Unwell ones keep what no available standby takes. Silent ones get nothing while anybody else is there.
const (
	Available Health = iota
	Unwell
	Silent
)

// SetHealth tells how a requester is. Its membership stays; who is not available has its users at the standbys in the others'
// joins, until it is available again or a higher epoch gives them to somebody.
func (t *Table) SetHealth(now time.Time, requester netip.Addr, h Health) []Action {
	if t.health[requester] == h {
		return t.take()
	}
	if t.health[requester] == Available {
		t.served[requester] = t.groupsOf(requester)
	}
	if h == Available {
		delete(t.health, requester)
		delete(t.served, requester)
	} else {
		t.health[requester] = h
	}
	for _, g := range t.private {
		if h != Available {
			g.endMoves(now)
		}
		if g.members[requester] != nil || g.hasStandbys() {
			t.outdate(g)
		}
	}
	return t.take()
}

// moveTime is how long after a set was replaced the move is taken to be under way: by then all joins are there that were not lost. Silence
// takes as long to be found out, so whoever falls silent later had won what it was given.
const moveTime = 250 * time.Millisecond

// endMoves forgets what was before moves that are over. Where somebody fails, users that it won are its standbys', not at who had them before.
func (g *privateGroup) endMoves(now time.Time) {
	maps.DeleteFunc(g.retired, func(_ netip.Addr, m *member) bool { return !now.Before(m.expires.Add(moveTime - retirement)) })
}

// groupsOf are the private groups that a requester is a member of.
func (t *Table) groupsOf(requester netip.Addr) (out []netip.Addr) {
	for addr, g := range t.private {
		if g.members[requester] != nil {
			out = append(out, addr)
		}
	}
	return out
}

// Health is how a requester is.
func (t *Table) Health(requester netip.Addr) Health { return t.health[requester] }

// Reroute says that a requester is reached by another port now than by that of its last join.
func (t *Table) Reroute(_ time.Time, requester netip.Addr, port string) []Action {
	for _, g := range t.private {
		if m := g.members[requester]; m != nil && m.port != port {
			m.port = port
			t.act(Changed{})
		}
	}
	return t.take()
}

// Requesters calls f with the port of each requester of a private group.
func (t *Table) Requesters(f func(requester netip.Addr, port string)) {
	for _, g := range t.private {
		for requester, m := range g.members {
			f(requester, m.port)
		}
	}
}

// Ranks of claims.
const (
	rankUnwell  = -3 // keeps what nobody better takes
	rankLate    = -2 // a standby by an allocation whose owner may yet send its joins
	rankStandby = -1
	rankOwner   = 0
)

// failing says that somebody is not available while somebody is heard. When all are silent, nobody could take over: then it is as
// likely the channel that has failed, and everybody keeps what it had.
func (g *privateGroup) failing() bool {
	silent, other := 0, 0
	for requester := range g.members {
		switch g.health[requester] {
		case Silent:
			silent++
		case Unwell:
			other++
		}
	}
	return silent < len(g.members) && silent+other > 0
}

// missing says that somebody who is no member here is not available. What nobody owns here may be his, and goes to its standby then: a
// router beside the standby alone never heard his joins, and one that did forgets them after a while. At other times it is nobody's: on
// a way that is new the owner's joins are still to come, and a standby would reset his connections. Who was a member of other groups
// here, when he was last well, serves those.
func (g *privateGroup) missing() bool {
	for requester := range g.health {
		if g.members[requester] == nil && (len(g.served[requester]) == 0 || slices.Contains(g.served[requester], g.addr)) {
			return true
		}
	}
	return false
}

func (g *privateGroup) hasStandbys() bool {
	for _, m := range g.members {
		if len(m.standby.Permit) > 0 {
			return true
		}
	}
	return false
}

// claims are what there is to steer by, in two parts: without the first one nobody who is available goes without what it owns.
func (g *privateGroup) claims() (more, needed []steer.Claim) {
	isFailing := g.failing()
	for requester, m := range g.members {
		switch {
		case !isFailing || g.health[requester] == Available:
			needed = append(needed, steer.Claim{Owner: m.owner, Rank: rankOwner, Epoch: m.epoch, Set: m.own})
		case g.health[requester] == Unwell:
			needed = append(needed, steer.Claim{Owner: m.owner, Rank: rankUnwell, Epoch: m.epoch, Set: m.own})
		}
	}
	for requester, m := range g.retired {
		if !isFailing || g.health[requester] == Available {
			more = append(more, steer.Claim{Owner: m.owner, Rank: rankOwner, Epoch: m.epoch, Set: m.own})
		}
	}
	switch {
	case isFailing:
		in := g.inForce()
		needed, more = append(needed, g.standbys(g.members, in)...), append(more, g.standbys(g.retired, in)...)
	case g.missing():
		in := g.inForce()
		more = slices.Concat(more, g.standbys(g.members, in), g.standbys(g.retired, in))
	}
	slices.SortFunc(needed, byOwner)
	slices.SortFunc(more, byOwner)
	return more, needed
}

// standbys are the claims of those who are available. While an epoch replaces another, those of the old one come first: who stands in for a
// dead server goes on until the new owner has joined, and a new standby that is heard before would only have the connections of a moment.
func (g *privateGroup) standbys(members map[netip.Addr]*member, inForce map[epoch.Epoch]bool) (out []steer.Claim) {
	for requester, m := range members {
		if len(m.standby.Permit) == 0 || g.health[requester] != Available {
			continue
		}
		rank := rankLate
		if inForce[m.epoch] {
			rank = rankStandby
		}
		out = append(out, steer.Claim{Owner: m.owner, Rank: rank, Epoch: m.epoch, Set: m.standby})
	}
	return out
}

// inForce are the epochs that somebody who failed has users in, or that are just being replaced. Who lives without its application joins
// the epoch that gives its users to others, too: nobody stands in for it there.
func (g *privateGroup) inForce() map[epoch.Epoch]bool {
	out := map[epoch.Epoch]bool{}
	for requester := range g.health {
		if m := g.members[requester]; m != nil && len(m.own.Permit) > 0 {
			out[m.epoch] = true
		}
	}
	for _, m := range g.retired {
		out[m.epoch] = true
	}
	return out
}

func byOwner(a, b steer.Claim) int { return int(a.Owner) - int(b.Owner) }
