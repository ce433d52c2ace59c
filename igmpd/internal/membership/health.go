package membership

import (
	"net/netip"
	"slices"
	"time"

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
		if g.members[requester] != nil || g.hasStandbys() {
			t.outdate(g)
		}
	}
	return t.take()
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
	rankUnwell  = -2 // keeps what nobody better takes
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

func (g *privateGroup) claimsOfSurvivors() (out []steer.Claim) {
	for requester, m := range g.members {
		switch g.health[requester] {
		case Available:
			out = append(out,
				steer.Claim{Owner: m.owner, Rank: rankOwner, Epoch: m.epoch, Set: m.own},
				steer.Claim{Owner: m.owner, Rank: rankStandby, Epoch: m.epoch, Set: m.standby})
		case Unwell:
			out = append(out, steer.Claim{Owner: m.owner, Rank: rankUnwell, Epoch: m.epoch, Set: m.own})
		}
	}
	slices.SortFunc(out, byOwner)
	return out
}

func claims(members map[netip.Addr]*member) []steer.Claim {
	out := make([]steer.Claim, 0, len(members))
	for _, m := range members {
		out = append(out, steer.Claim{Owner: m.owner, Epoch: m.epoch, Set: m.own})
	}
	slices.SortFunc(out, byOwner)
	return out
}

func standbys(members map[netip.Addr]*member) []steer.Claim {
	out := make([]steer.Claim, 0, len(members))
	for _, m := range members {
		if len(m.standby.Permit) > 0 {
			out = append(out, steer.Claim{Owner: m.owner, Rank: rankStandby, Epoch: m.epoch, Set: m.standby})
		}
	}
	slices.SortFunc(out, byOwner)
	return out
}

func byOwner(a, b steer.Claim) int { return int(a.Owner) - int(b.Owner) }
