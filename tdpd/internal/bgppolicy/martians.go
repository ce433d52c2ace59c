package bgppolicy

import (
	"net/netip"
	"slices"
)

// martians are what no router forwards: the special-purpose address blocks whose Forwardable is False in the tables of RFC 6890 section 2.2 (as
// updated by RFC 8190), multicast, which is no unicast FEC, and what came to the registry later in the same manner. Blocks that are forwarded in a
// domain are none: private (RFC 1918), shared (RFC 6598), benchmarking (RFC 2544, RFC 5180), discard-only (RFC 6666), unique local (RFC 4193).
var martians = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // this host on this network: RFC 1122 section 3.2.1.3, RFC 6890 table 1
	netip.MustParsePrefix("127.0.0.0/8"),    // loopback: RFC 1122 section 3.2.1.3, RFC 6890 table 4
	netip.MustParsePrefix("169.254.0.0/16"), // link local: RFC 3927, RFC 6890 table 5
	netip.MustParsePrefix("192.0.0.0/24"),   // IETF protocol assignments: RFC 6890 table 7
	netip.MustParsePrefix("224.0.0.0/4"),    // multicast: RFC 5771
	netip.MustParsePrefix("240.0.0.0/4"),    // reserved: RFC 1112 section 4, RFC 6890 table 15; limited broadcast, table 16
	netip.MustParsePrefix("::/128"),         // unspecified: RFC 4291 section 2.5.2, RFC 6890 table 18
	netip.MustParsePrefix("::1/128"),        // loopback: RFC 4291 section 2.5.3, RFC 6890 table 17
	netip.MustParsePrefix("::ffff:0:0/96"),  // mapped addresses: RFC 4291 section 2.5.5.2, RFC 6890 table 20
	netip.MustParsePrefix("fe80::/10"),      // link local: RFC 4291 section 2.5.6, RFC 6890 table 29
	netip.MustParsePrefix("ff00::/8"),       // multicast: RFC 4291 section 2.7
}

// documentation is not forwarded, either, but in labs.
var documentation = [...]netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"),    // TEST-NET-1: RFC 5737, RFC 6890 table 9
	netip.MustParsePrefix("198.51.100.0/24"), // TEST-NET-2: RFC 5737, RFC 6890 table 13
	netip.MustParsePrefix("203.0.113.0/24"),  // TEST-NET-3: RFC 5737, RFC 6890 table 14
	netip.MustParsePrefix("2001:db8::/32"),   // RFC 3849, RFC 6890 table 25
	netip.MustParsePrefix("3fff::/20"),       // RFC 9637
}

// Martians are the prefixes that nobody may tell, nor any inside them, each once; in a lab those of documentation are none. A prefix that has other
// addresses, too, is none.
func Martians(lab bool) []netip.Prefix {
	if lab {
		return slices.Clone(martians[:])
	}
	return slices.Concat(martians[:], documentation[:])
}
