package labels

import (
	"net/netip"
	"time"
)

// Kind says what a FEC is to this router.
type Kind uint8

// Kinds. Of Attached and Server this router is the egress (RFC 5036 section 2.6.1.2).
const (
	// Transit leads on to next hops that speak LDP.
	Transit Kind = iota
	// Attached is this router's own or a network of its links, or leads out of where labels are: packets are routed by address here,
	// and need no label for it.
	Attached
	// Server is a server that this router is the last one before: packets are handed to its neighbour without looking at the
	// address, which is the service's. So it has a label of its own, never null.
	Server
)

// String is the kind in a word.
func (k Kind) String() string { return [...]string{"transit", "attached", "server"}[k] }

// NextHop is where packets of a FEC go.
type NextHop struct {
	Address   netip.Addr // without a zone
	Interface string
	Index     int // of the interface
}

// Route is a FEC and where it leads.
type Route struct {
	Prefix   netip.Prefix
	Kind     Kind
	NextHops []NextHop // of Transit the next routers, of Server its neighbour; equal ones count once
	Tunneled bool      // of Transit: where no next hop has bound a label, a neighbor at the far end of a tunnel may have
}

// Routes takes routes that are new or have changed, and prefixes that there is no route for any more. What cannot be a FEC is ignored.
func (l *Labels) Routes(now time.Time, changed []Route, gone []netip.Prefix) []Action {
	l.now = now
	for _, r := range changed {
		if usable(r.Prefix) {
			l.route(r)
		}
	}
	for _, p := range gone {
		if f := l.fecs[p.Masked()]; f != nil && f.routed {
			l.unroute(f)
		}
	}
	return l.take()
}

func (l *Labels) route(r Route) {
	f := l.fec(r.Prefix.Masked())
	var hops *hopSet
	if r.Kind != Attached {
		hops = l.hopSet(r.NextHops)
	}
	if f.routed && f.kind == r.Kind && f.hops == hops && f.tunneled == r.Tunneled {
		l.sets.drop(hops)
		return
	}
	l.sets.drop(f.hops)
	if !f.routed {
		l.routed++
	}
	f.routed, f.kind, f.hops, f.tunneled = true, r.Kind, hops, r.Tunneled
	l.change(f)
	l.settle(f)
	l.settleRequests(f)
}

func (l *Labels) unroute(f *fec) {
	l.sets.drop(f.hops)
	l.routed--
	f.routed, f.kind, f.hops, f.tunneled = false, Transit, nil, false
	l.change(f)
	l.answerUnrouted(f)
	l.settle(f)
	l.settleRequests(f)
}
