package config

import (
	"cmp"
	"path/filepath"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp/bfd"
)

// BGPBFD is bfd of a neighbor.
type BGPBFD struct {
	Transmit   time.Duration `toml:"transmit"`
	Receive    time.Duration `toml:"receive"`
	Multiplier int           `toml:"multiplier"`
}

// Where a session's times are not said.
const (
	bfdInterval   = 300 * time.Millisecond
	bfdMultiplier = 3
)

// bfdd is where FRR 8.4 of Debian has its socket.
const bfdd = "/run/frr/bfdd.vty"

// session is what is to be kept with a neighbor.
func (b BGPBFD) session(n BGPNeighbor) bfd.Session {
	return bfd.Session{
		Peer: n.Address, Local: n.Local, Multihop: n.Hops > 1, Transmit: cmp.Or(b.Transmit, bfdInterval), Receive: cmp.Or(b.Receive, bfdInterval),
		Multiplier: cmp.Or(b.Multiplier, bfdMultiplier),
	}
}

// BFD are the neighbors with whom a BFD session is to be kept.
func (b BGP) BFD() (all []bfd.Neighbor) {
	for _, n := range b.Neighbors {
		if n = n.withDefaults(); n.BFD != nil {
			all = append(all, bfd.Neighbor{Session: n.BFD.session(n), Hold: n.Hold})
		}
	}
	return all
}

func (n BGPNeighbor) checkBFD(bad func(string, ...any)) {
	if n.BFD == nil {
		return
	}
	s := n.BFD.session(n)
	for _, t := range []struct {
		name string
		d    time.Duration
	}{{"transmit", s.Transmit}, {"receive", s.Receive}} {
		if t.d < bfd.IntervalLeast || t.d > bfd.IntervalMost || t.d%time.Millisecond != 0 {
			bad("bfd.%s is %v: want whole milliseconds, %v to %v", t.name, t.d, bfd.IntervalLeast, bfd.IntervalMost)
		}
	}
	if s.Multiplier < bfd.MultiplierLeast || s.Multiplier > bfd.MultiplierMost {
		bad("bfd.multiplier is %d: want %d to %d", s.Multiplier, bfd.MultiplierLeast, bfd.MultiplierMost)
	}
	if detect := s.Receive * time.Duration(s.Multiplier); detect >= n.Hold {
		bad("bfd finds a silent neighbor after %v, and hold of %v without it: want less than hold", detect, n.Hold)
	}
	if s.Multihop && !s.Local.IsValid() {
		bad("bfd over %d hops: say local, this router's address", n.Hops)
	}
}

func (b BGP) checkBFD(bad func(string, ...any)) {
	if len(b.BFD()) > 0 && !filepath.IsAbs(b.BFDD) {
		bad("bgp.bfdd %q: want the path of bfdd's vty socket, such as %s", b.BFDD, bfdd)
	}
}
