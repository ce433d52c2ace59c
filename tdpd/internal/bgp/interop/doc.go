// Package interop tests the speaker with real peers, in network namespaces: FRR's bgpd, Debian's gobgpd, and ones that behave badly.
package interop
