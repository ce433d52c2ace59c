// Package flowspec says in rules of BGP FlowSpec (RFC 8955, of IPv6 RFC 8956) which users of a service go to which server, for upstream routers
// that are not ours. Bindings go in, rules and the order in which they come and go come out. It is pure.
//
// A rule has a source prefix, the VIP, and where packets are redirected to. What it cannot say is left to the director, to whom packets go
// that no rule matches: a user may be without a rule, it never has the rule of another server.
//
// Receivers check a rule against their unicast routes (RFC 8955 section 6): the best path to the VIP, and none longer, has to come from whoever
// tells the rule, or within one AS the rule's AS path has to be empty (RFC 9117). So a director tells rules of VIPs alone that it announces, on
// the same sessions; of several directors those rules hold whose VIP a receiver prefers, and all directors have the same ones. A redirected
// packet is for the VIP still: the way to the server has to be a tree of labels, a tunnel or a link, or routers between send it back.
package flowspec

import (
	"fmt"
	"net/netip"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// Users are a service's users, and who takes them.
type Users struct {
	Service string
	VIPs    []netip.Addr
	Four    []Bound // of IPv4: the first that has a user says where it goes; who is in none goes to the director
	Six     []Bound // of IPv6
}

// Bound are users who go to one server.
type Bound struct {
	Portion portion.Portion
	Server  netip.Addr // zero: to the director
	Why     Reason     // it is the director; None: that is what is wanted
}

// Reason is why users have no rule, though a server takes them.
type Reason uint8

// Reasons.
const (
	None      Reason = iota
	NotPrefix        // the portion's mask is no prefix, or a portion before it has such a mask
	Hashed           // users of IPv6 are spread over slots by a hash of their addresses
	ByPort           // they are told apart by source port, too
	NoAddress        // the server has no address of the family, nor a VRF
	OverLimit        // there would be too many rules
	reasons
)

var reasonNames = [reasons]string{"none", "not_prefix", "hashed", "by_port", "no_address", "over_limit"}

// String is for counters.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Config is what rules may be.
type Config struct {
	// Most is how many rules there may be, of all services together, also while they change.
	Most int
	// Nested lets a rule lie in another one's prefix, which saves rules, for routers that look at the longer prefix first (RFC 8955 section 5.1).
	// Linux with FRR does not: there overlapping rules come in any order. Without, no user matches two rules, but those of before and after a change.
	Nested bool
	// Within are networks of users where portions that are no prefixes are spread out into prefixes that are, as far as Most lets them.
	Within []netip.Prefix
	// VRFs are the route targets of tables that lead to servers, by server; the others are redirected to by address.
	VRFs map[netip.Addr]bgp.RouteTarget
}

// Result is what Compile makes.
type Result struct {
	Rules []bgp.FlowRule // by destination, then source
	// Left are portions that have no rules, or not all of their users, ordered by service; at most LeftMost.
	Left []Left
	// Reasons counts all portions that are left, however many.
	Reasons map[Reason]int
}

// LeftMost bounds Result.Left.
const LeftMost = 1000

// Left is a portion whose users, or some of them, go by the director.
type Left struct {
	Service string
	Portion portion.Portion
	Server  netip.Addr // zero: of several
	Why     Reason
}

// Decide is what a router does with a user's packet to a VIP by rules: the one with the longest source prefix holds (RFC 8955 section 5.1). The
// zero action is the route, to a director.
func Decide(rules []bgp.FlowRule, user, vip netip.Addr) bgp.FlowAction {
	best, action := -1, bgp.FlowAction{}
	for _, r := range rules {
		if !r.Destination.Contains(vip) {
			continue
		}
		switch {
		case !r.Source.IsValid():
			if best < 0 {
				best, action = 0, r.FlowAction
			}
		case r.Source.Contains(user) && r.Source.Bits() > best:
			best, action = r.Source.Bits(), r.FlowAction
		}
	}
	return action
}
