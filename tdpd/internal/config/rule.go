package config

import "net/netip"

// Rule lets prefixes pass a filter, or not. The first rule that speaks of a prefix decides; where none does, it does not pass. A
// filter without rules lets all pass.
type Rule struct {
	Prefix netip.Prefix `toml:"prefix"` // and longer ones within it
	Least  int          `toml:"min_length"`
	Most   int          `toml:"max_length"` // 0: as long as they come
	Peer   netip.Addr   `toml:"peer"`       // router id; none: all peers
	Deny   bool         `toml:"deny"`
}

var (
	anyV4 = netip.MustParsePrefix("0.0.0.0/0")
	anyV6 = netip.MustParsePrefix("::/0")
)

func (r Rule) speaksOf(p netip.Prefix, peer netip.Addr) bool {
	return r.Prefix.Bits() <= p.Bits() && r.Prefix.Contains(p.Addr()) && p.Bits() >= r.Least && (r.Most == 0 || p.Bits() <= r.Most) &&
		(!r.Peer.IsValid() || r.Peer == peer)
}

func passes(rules []Rule, p netip.Prefix, peer netip.Addr) bool {
	for _, r := range rules {
		if r.speaksOf(p, peer) {
			return !r.Deny
		}
	}
	return len(rules) == 0
}
