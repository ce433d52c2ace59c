package gobgp

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// prefixOfNames begins the names of all that is ours in a speaker that may have policies of others, too.
const prefixOfNames = "manycast-"

// compiled is a policy for the speaker, of one direction, with the sets that it looks into. Its name, and theirs, follow from what is in it: what is
// there under that name is the same.
type compiled struct {
	policy *api.Policy
	sets   []*api.DefinedSet
}

// defaults are the routes to everywhere.
var defaults = []bgp.PrefixRange{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Prefix: netip.MustParsePrefix("::/0")}}

// compileImport is what may come in: nothing from anybody but what a policy takes, and never what is refused here first. Without neighbors there is none.
func compileImport(d bgp.Desired) compiled {
	if len(d.Neighbors) == 0 {
		return compiled{} // a set of no neighbors is one of all
	}
	c := newCompiler(d, "import")
	c.refuseMapped()
	for _, f := range []bgp.Family{bgp.IPv4FlowSpec, bgp.IPv6FlowSpec} {
		c.add(&api.Conditions{NeighborSet: c.everybody, AfiSafiIn: []*api.Family{toFamily(f)}}, reject)
	}
	for _, refused := range [][]bgp.PrefixRange{defaults, below(d.Martians), below(d.VIPs)} {
		for _, set := range c.prefixSets(refused) {
			c.add(&api.Conditions{NeighborSet: c.everybody, PrefixSet: set}, reject)
		}
	}
	for _, n := range d.Neighbors {
		c.rules(n, n.Import, &api.Conditions{})
	}
	c.add(&api.Conditions{NeighborSet: c.everybody}, reject)
	return c.named()
}

// compileExport is what goes out: paths of ours, as policies want them, and none of others. Neighbors that are somebody else's hear of ours, too, as policies of theirs
// want it, but for our marks: those are for nobody.
func compileExport(d bgp.Desired) compiled {
	if len(d.Neighbors) == 0 {
		return compiled{}
	}
	c := newCompiler(d, "export")
	var others []bgp.Neighbor
	for _, n := range d.Neighbors {
		if n.AS != d.AS {
			others = append(others, n)
		}
	}
	if len(others) > 0 {
		c.prepend(c.neighbors(others))
	}
	c.add(&api.Conditions{}, &api.Actions{LargeCommunity: &api.CommunityAction{
		Type: api.CommunityAction_REMOVE, Communities: []string{fmt.Sprintf(`^%d:%d:\d+$`, d.AS, ours)},
	}})
	local := &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}
	for _, n := range d.Neighbors {
		if n.Export == "" {
			c.add(withNeighbor(local, c.neighbors([]bgp.Neighbor{n})), accept)
		} else {
			c.rules(n, n.Export, local)
		}
	}
	c.add(&api.Conditions{NeighborSet: c.everybody}, reject)
	return c.named()
}

// below are the prefixes with all that is inside them.
func below(prefixes []netip.Prefix) (out []bgp.PrefixRange) {
	for _, p := range prefixes {
		out = append(out, bgp.PrefixRange{Prefix: p, Least: p.Bits(), Most: p.Addr().BitLen()})
	}
	return out
}

// refuseMapped is before all other sets of IPv6 prefixes: the library looks an IPv4-mapped one (::ffff:0:0/96 and inside) up in them as one of IPv4, and dies where they
// have a fork behind the length of that. In a set of one it finds no fork, and nothing. It looks at sets before neighbors: this is for those of others, too.
func (c *compiler) refuseMapped() {
	for _, set := range c.prefixSets(below([]netip.Prefix{netip.PrefixFrom(netip.IPv6Unspecified(), 0)})) {
		set.Type = api.MatchSet_INVERT
		c.add(&api.Conditions{PrefixSet: set}, reject)
	}
}

type compiler struct {
	compiled
	as        uint32
	policies  map[string]bgp.Policy
	everybody *api.MatchSet // all neighbors of ours
}

var (
	accept = &api.Actions{RouteAction: api.RouteAction_ACCEPT}
	reject = &api.Actions{RouteAction: api.RouteAction_REJECT}
)

func newCompiler(d bgp.Desired, direction string) *compiler {
	c := &compiler{as: d.AS, policies: map[string]bgp.Policy{}, compiled: compiled{policy: &api.Policy{Name: prefixOfNames + direction}}}
	for _, p := range d.Policies {
		c.policies[p.Name] = p
	}
	c.everybody = c.neighbors(d.Neighbors)
	return c
}

func (c *compiler) add(when *api.Conditions, then ...*api.Actions) {
	for _, a := range then {
		c.policy.Statements = append(c.policy.Statements, &api.Statement{Conditions: proto.Clone(when).(*api.Conditions), Actions: a})
	}
}

// set adds one, and says where it is; one that is there already is used again.
func (c *compiler) set(s *api.DefinedSet) *api.MatchSet {
	for _, has := range c.sets {
		if s.Name = has.Name; proto.Equal(has, s) {
			return &api.MatchSet{Name: has.Name}
		}
	}
	s.Name = fmt.Sprintf("%d", len(c.sets))
	c.sets = append(c.sets, s)
	return &api.MatchSet{Name: s.Name}
}

func (c *compiler) neighbors(all []bgp.Neighbor) *api.MatchSet {
	set := &api.DefinedSet{DefinedType: api.DefinedType_NEIGHBOR}
	for _, n := range all {
		set.List = append(set.List, netip.PrefixFrom(n.Address, n.Address.BitLen()).String())
	}
	return c.set(set)
}

func withNeighbor(when *api.Conditions, neighbor *api.MatchSet) *api.Conditions {
	with := proto.Clone(when).(*api.Conditions)
	with.NeighborSet = neighbor
	return with
}

// rules are those of a neighbor's policy, each for whatever when says, too.
func (c *compiler) rules(n bgp.Neighbor, policy string, when *api.Conditions) {
	when = withNeighbor(when, c.neighbors([]bgp.Neighbor{n}))
	for _, r := range c.policies[policy].Rules {
		when := proto.Clone(when).(*api.Conditions)
		var prepend *api.AsPrependAction
		if r.Set.Prepend > 0 && n.AS != c.as {
			prepend = &api.AsPrependAction{Asn: c.as, Repeat: uint32(r.Set.Prepend)}
		}
		then := actions(r, prepend)
		for _, f := range r.Families {
			when.AfiSafiIn = append(when.AfiSafiIn, toFamily(f))
		}
		if len(r.Communities) > 0 {
			when.CommunitySet = c.communities(r.Communities)
		}
		if len(r.Prefixes) == 0 {
			c.add(when, then...)
			continue
		}
		for _, set := range c.prefixSets(r.Prefixes) {
			when := proto.Clone(when).(*api.Conditions)
			when.PrefixSet = set
			c.add(when, then...)
		}
	}
}

func (c *compiler) communities(all []bgp.Community) *api.MatchSet {
	return c.set(&api.DefinedSet{DefinedType: api.DefinedType_COMMUNITY, List: exactly(all)})
}

// numbers are communities without names.
func numbers(all []bgp.Community) (out []string) {
	for _, c := range all {
		out = append(out, fmt.Sprintf("%d:%d", uint32(c)>>16, uint32(c)&0xffff))
	}
	return out
}

// exactly are the regular expressions that match the communities and nothing else.
func exactly(all []bgp.Community) (out []string) {
	for _, n := range numbers(all) {
		out = append(out, "^"+n+"$")
	}
	return out
}

// prefixSets are one for each family: the speaker has no mixed ones. It looks at the longest prefix of a set that contains a path's, and at no other one.
// So each has all ranges that hold inside it.
func (c *compiler) prefixSets(ranges []bgp.PrefixRange) (sets []*api.MatchSet) {
	for _, is4 := range []bool{true, false} {
		set := &api.DefinedSet{DefinedType: api.DefinedType_PREFIX}
		var around []bgp.PrefixRange // those that contain the next one, the widest first
		for _, inner := range sorted(ranges, is4) {
			around = slices.DeleteFunc(around, func(r bgp.PrefixRange) bool { return !r.Prefix.Contains(inner.Prefix.Addr()) })
			around = append(around, inner)
			for _, r := range around {
				if r.Most >= inner.Prefix.Bits() {
					set.Prefixes = append(set.Prefixes, &api.Prefix{
						IpPrefix: inner.Prefix.String(), MaskLengthMin: uint32(max(r.Least, inner.Prefix.Bits())), MaskLengthMax: uint32(r.Most),
					})
				}
			}
		}
		if len(set.Prefixes) > 0 {
			sets = append(sets, c.set(set))
		}
	}
	return sets
}

// sorted are the ranges of a family, each before those inside it.
func sorted(ranges []bgp.PrefixRange, is4 bool) (out []bgp.PrefixRange) {
	for _, r := range ranges {
		if r.Prefix.Addr().Is4() == is4 {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b bgp.PrefixRange) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return slices.Compact(out)
}

// actions are what a rule does to a path, in order: the last one decides.
func actions(r bgp.PolicyRule, prepend *api.AsPrependAction) (all []*api.Actions) {
	if r.Deny {
		return []*api.Actions{reject}
	}
	a := &api.Actions{RouteAction: api.RouteAction_ACCEPT, AsPrepend: prepend}
	if r.Set.MED != nil {
		a.Med = &api.MedAction{Type: api.MedAction_REPLACE, Value: int64(*r.Set.MED)}
	}
	if r.Set.LocalPref != nil {
		a.LocalPref = &api.LocalPrefAction{Value: *r.Set.LocalPref}
	}
	if len(r.Set.Add) > 0 { // before any is removed that the rule may match by
		all = append(all, &api.Actions{Community: &api.CommunityAction{Type: api.CommunityAction_ADD, Communities: numbers(r.Set.Add)}})
	}
	if len(r.Set.Remove) > 0 {
		a.Community = &api.CommunityAction{Type: api.CommunityAction_REMOVE, Communities: exactly(r.Set.Remove)}
	}
	return append(all, a)
}

// prepend puts our AS in front as the marks of paths say.
func (c *compiler) prepend(neighbors *api.MatchSet) {
	for bit := 1; bit <= bgp.PrependMost; bit <<= 1 {
		set := c.set(&api.DefinedSet{DefinedType: api.DefinedType_LARGE_COMMUNITY, List: []string{fmt.Sprintf("^%d:%d:%d$", c.as, ours, bit)}})
		c.add(&api.Conditions{NeighborSet: neighbors, LargeCommunitySet: set}, &api.Actions{AsPrepend: &api.AsPrependAction{Asn: c.as, Repeat: uint32(bit)}})
	}
}

// named gives the policy and what belongs to it names of what they hold.
func (c *compiler) named() compiled {
	h := sha256.New()
	for _, m := range append([]proto.Message{c.policy}, asMessages(c.sets)...) {
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			panic(err) // messages of ours are good
		}
		h.Write(text)
	}
	c.policy.Name += "-" + hex.EncodeToString(h.Sum(nil)[:8])
	for _, s := range c.sets {
		s.Name = c.policy.Name + "-" + s.Name
	}
	for i, s := range c.policy.Statements {
		s.Name = fmt.Sprintf("%s-%d", c.policy.Name, i)
		for _, m := range []*api.MatchSet{s.Conditions.NeighborSet, s.Conditions.PrefixSet, s.Conditions.CommunitySet, s.Conditions.LargeCommunitySet} {
			if m != nil {
				m.Name = c.policy.Name + "-" + m.Name
			}
		}
	}
	return c.compiled
}

func asMessages(sets []*api.DefinedSet) (out []proto.Message) {
	for _, s := range sets {
		out = append(out, s)
	}
	return out
}

// isOurs says whether a policy or a set has a name that this package gives.
func isOurs(name string) bool { return strings.HasPrefix(name, prefixOfNames) }

// known is whether all policies that neighbors name are there.
func known(d bgp.Desired) error {
	for _, n := range d.Neighbors {
		for _, name := range []string{n.Import, n.Export} {
			if name != "" && !slices.ContainsFunc(d.Policies, func(p bgp.Policy) bool { return p.Name == name }) {
				return fmt.Errorf("neighbor %v: there is no policy %q", n.Address, name)
			}
		}
	}
	return nil
}

// policyOf is the policy that a set is of.
func policyOf(set string) string { return set[:max(0, strings.LastIndexByte(set, '-'))] }
