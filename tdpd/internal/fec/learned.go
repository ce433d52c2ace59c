package fec

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/labels"
)

// Learned is where a prefix leads that the kernel's tables may not have: BGP has told it.
type Learned struct {
	Via      netip.Addr // the router that it leads to; zero: the prefix is not learned any more
	Labelled bool       // with a label that this router wants, which has to be on a link of ours: nobody between knows the label
}

// via is what there is of a router that learned prefixes lead to.
type via struct {
	prefixes map[netip.Prefix]bool
	hops     []labels.NextHop
}

// Learn takes what routing protocols tell of prefixes. The kernel's own route to a prefix goes before.
func (f *FECs) Learn(news map[netip.Prefix]Learned) (changed []labels.Route, gone []netip.Prefix) {
	for p, l := range news {
		if was, ok := f.learned[p]; ok {
			v := f.vias[was.Via]
			if delete(v.prefixes, p); len(v.prefixes) == 0 {
				delete(f.vias, was.Via)
			}
		}
		if !l.Via.IsValid() {
			delete(f.learned, p)
			continue
		}
		f.learned[p] = l
		v := f.vias[l.Via]
		if v == nil {
			v = &via{map[netip.Prefix]bool{}, f.NextHops(l.Via)}
			f.vias[l.Via] = v
		}
		v.prefixes[p] = true
	}
	about := map[netip.Prefix]bool{}
	for p := range news {
		about[p] = true
	}
	f.serversIn(about)
	return f.some(maps.Keys(about))
}

// resolve looks anew how learned prefixes' routers are reached, and adds those of which that has changed.
func (f *FECs) resolve(about map[netip.Prefix]bool) {
	for to, v := range f.vias {
		if hops := f.NextHops(to); !slices.Equal(hops, v.hops) {
			v.hops = hops
			maps.Copy(about, v.prefixes)
		}
	}
}

// learnedHops are the next hops of a learned prefix; none: it is no FEC.
func (f *FECs) learnedHops(p netip.Prefix) []labels.NextHop {
	l, ok := f.learned[p]
	if !ok {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(f.vias[l.Via].hops), func(h labels.NextHop) bool {
		return l.Labelled && h.Address != l.Via || !l.Labelled && !f.runs(h.Interface)
	})
}
