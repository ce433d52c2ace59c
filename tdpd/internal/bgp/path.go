package bgp

import "net/netip"

// Attributes are what a path says beside its prefix.
type Attributes struct {
	// NextHop is where packets go; zero in a path of ours: the address of each session that it is told on.
	NextHop netip.Addr
	// MED is the multi-exit discriminator (RFC 4271 section 5.1.4); nil: none.
	MED *uint32
	// LocalPref is for neighbors of the same AS; nil: the speaker's default of 100.
	LocalPref *uint32
	// ASPath is how it came here, the neighbor's AS first; sets are flattened. A path of ours that passes on what a neighbor told has the
	// neighbor's, so that nobody takes it in a circle; else it is empty. The speaker puts our AS in front.
	ASPath []uint32
	// Prepend is how often our AS stands in it beyond the once that the protocol wants, of paths of ours, toward other ASes; 0 to PrependMost.
	Prepend int
	// Communities are in ascending order, each once.
	Communities []Community
}

// PrependMost is how often at most an own AS is put in front: some routers refuse paths that are longer.
const PrependMost = 31

// Path is a way to a prefix, without a label (SAFI 1).
type Path struct {
	Prefix netip.Prefix // masked
	Attributes
	From  netip.Addr // neighbor that it was learnt from; zero: ours
	Stale bool       // from before the neighbor's restart (RFC 4724, RFC 9494)
}

// LabelledPath is a path with the label that the next hop wants (SAFI 4, RFC 8277).
type LabelledPath struct {
	Path
	Label uint32 // 0 to 1048575; 3: implicit null, packets go without
}

// Family is what carries the path.
func (p Path) Family() Family { return UnicastOf(p.Prefix) }

// Family is what carries the path.
func (p LabelledPath) Family() Family { return LabelledOf(p.Prefix) }
