// Package kernel brings the forwarding of labelled packets into the kernel: entries for labels that come in (RFC 3031's ILM) and
// for prefixes whose packets get labels (FTN). Callers say all that they want with Set, or what is to change with Update; the
// package finds and makes the difference, and leaves alone what is not its own.
//
// Linux's tables are the first Backend: AF_MPLS routes of protocol Protocol, and routes with `encap mpls` in the main table, of
// Config.RouteProtocol and metric Metric. The kernel goes on forwarding when the process is killed, and the next one takes over without a change.
package kernel

import (
	"net/netip"
)

// Protocol is the route protocol (rtm_protocol) of labels that are ours: the suite's number, which igmpd's rules have, too.
const Protocol = 77

// Metric is that of our IP routes. It is below those that routing daemons choose (FRR 20, BIRD 32, IPv6 without a metric 1024), so
// that of two routes to a prefix the one with labels wins. An IPv4 route without any metric wins against it: give it one.
const Metric = 1

// Backend carries a State out. Its methods may be called from several goroutines.
type Backend interface {
	// Set makes s the state. Entries that stay the same are not touched, changed ones are replaced in one step, and what
	// goes is removed last. What can be done is done even where a part fails: the error joins Failures, which name the
	// entries, with others that concern all. Set may be tried again, and tries again what failed.
	Set(s State) error
	// Update changes single entries, as Set would if given the state that results.
	Update(c Changes) error
	// Entries are those that are there, as this process or one before it made them, whatever of a State they can show:
	// Interfaces is nil.
	Entries() (State, error)
	// Others are the labels that somebody else has entries for. Nothing else is known of those.
	Others() ([]uint32, error)
	// Changed gets a value after somebody else has changed, or may have changed, what is ours: Set is to be called again.
	// It never closes.
	Changed() <-chan struct{}
	// Close ends the work. Without keep all that is ours is removed and settings are put back; with keep forwarding goes on.
	Close(keep bool) error
}

// State is all that tdpd wants forwarded.
type State struct {
	Interfaces []string               // that take labelled packets, by name
	Labels     map[uint32][]Hop       // by the label that comes in, 16 to 1,048,574; several hops share the flows
	Prefixes   map[netip.Prefix][]Hop // masked; hops have Via
}

// Changes are entries to set; those without hops are to be removed.
type Changes struct {
	Labels   map[uint32][]Hop
	Prefixes map[netip.Prefix][]Hop
}

// Hop is where packets go on to, and how. Which of a label's stack comes off is always the one that came in.
type Hop struct {
	Labels    []uint32   // to push, outermost first; none: a packet leaves with what is below the label, or as it is
	Via       netip.Addr // the neighbour, of either family for labels; the zero Addr: Interface takes it in itself (lo: delivered here)
	Interface int        // index
	// Tunnel is the far end of a tunnel that the labels cross in UDP (RFC 7510), Via its next hop. The zero Addr: there is none. The
	// kernel's tables have no such hops.
	Tunnel netip.Addr
}

// labelsMax is the size of the label space (RFC 3032: 20 bits), labelFirst the first that can be given out, labelImplicitNull the one
// that never is in a packet.
const (
	labelsMax         = 1 << 20
	labelFirst        = 16
	labelImplicitNull = 3
	stackMax          = 30            // the kernel's limit (MAX_NEW_LABELS)
	platformMax       = labelsMax - 1 // of net.mpls.platform_labels: the last label of all is none for the kernel
)
