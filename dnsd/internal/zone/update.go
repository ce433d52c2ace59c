package zone

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Update is the zone after a dynamic update (RFC 2136): all of it or nothing. The code is the answer's RCODE; with any but
// NOERROR, and where nothing changes, the zone that comes back is the old one.
func (z *Zone) Update(prerequisites, updates []dns.RR) (*Zone, int) {
	if code := z.check(prerequisites); code != dns.RcodeSuccess {
		return z, code
	}
	for _, rr := range updates {
		if code := z.prescan(rr); code != dns.RcodeSuccess {
			return z, code
		}
	}
	d := z.draft()
	for _, rr := range updates {
		d.apply(rr)
	}
	if !d.changed {
		return z, dns.RcodeSuccess
	}
	if len(d.nodes) > namesMax {
		return z, dns.RcodeRefused
	}
	d.bump()
	return d.done(), dns.RcodeSuccess
}

// check is RFC 2136 section 3.2, in order of the RRs.
func (z *Zone) check(prerequisites []dns.RR) int {
	type key struct {
		name   string
		rrtype uint16
	}
	want := map[key][]dns.RR{} // value-dependent ones, whole sets
	for _, rr := range prerequisites {
		h := rr.Header()
		name := dns.CanonicalName(h.Name)
		if h.Ttl != 0 {
			return dns.RcodeFormatError
		}
		if !dns.IsSubDomain(z.origin, name) {
			return dns.RcodeNotZone
		}
		if h.Class != dns.ClassINET && h.Rdlength != 0 {
			return dns.RcodeFormatError
		}
		n := z.nodes[name]
		there := len(n) > 0
		if h.Rrtype != dns.TypeANY {
			there = n[h.Rrtype] != nil
		}
		switch {
		case h.Class == dns.ClassINET:
			k := key{name, h.Rrtype}
			want[k] = append(want[k], rr)
		case h.Class == dns.ClassANY && !there:
			return missing(h.Rrtype, dns.RcodeNameError, dns.RcodeNXRrset)
		case h.Class == dns.ClassNONE && there:
			return missing(h.Rrtype, dns.RcodeYXDomain, dns.RcodeYXRrset)
		case h.Class != dns.ClassANY && h.Class != dns.ClassNONE:
			return dns.RcodeFormatError
		}
	}
	for k, set := range want {
		if !sameSet(z.nodes[k.name][k.rrtype], set) {
			return dns.RcodeNXRrset
		}
	}
	return dns.RcodeSuccess
}

func missing(rrtype uint16, ofName, ofSet int) int {
	if rrtype == dns.TypeANY {
		return ofName
	}
	return ofSet
}

func sameSet(have, want []dns.RR) bool {
	in := func(set []dns.RR, rr dns.RR) bool {
		return slices.ContainsFunc(set, func(o dns.RR) bool { return equal(o, rr) })
	}
	for _, rr := range want {
		if !in(have, rr) {
			return false
		}
	}
	for _, rr := range have {
		if !in(want, rr) {
			return false
		}
	}
	return true
}

// equal compares owner, type and data; dns.IsDuplicate minds the owner's letter case.
func equal(a, b dns.RR) bool {
	a, b = dns.Copy(a), dns.Copy(b)
	for _, rr := range []dns.RR{a, b} {
		rr.Header().Name = dns.CanonicalName(rr.Header().Name)
		rr.Header().Class = dns.ClassINET
	}
	return dns.IsDuplicate(a, b)
}

// prescan is RFC 2136 section 3.4.1. An RR that would not survive the zone file is refused.
func (z *Zone) prescan(rr dns.RR) int {
	h := rr.Header()
	if !dns.IsSubDomain(z.origin, dns.CanonicalName(h.Name)) {
		return dns.RcodeNotZone
	}
	switch h.Class {
	case dns.ClassINET:
		if meta(h.Rrtype) || h.Rrtype == dns.TypeANY || h.Rdlength == 0 {
			return dns.RcodeFormatError
		}
		if !writable(rr) {
			return dns.RcodeRefused
		}
	case dns.ClassANY:
		if h.Ttl != 0 || h.Rdlength != 0 || meta(h.Rrtype) {
			return dns.RcodeFormatError
		}
	case dns.ClassNONE:
		if h.Ttl != 0 || h.Rdlength == 0 || meta(h.Rrtype) || h.Rrtype == dns.TypeANY {
			return dns.RcodeFormatError
		}
	default:
		return dns.RcodeFormatError
	}
	return dns.RcodeSuccess
}

// writable says whether an RR comes back from a master file as it is, and leaves the next line alone.
func writable(rr dns.RR) bool {
	p := dns.NewZoneParser(strings.NewReader(line(rr)+"end. 0 IN A 192.0.2.1\n"), ".", "")
	back, ok := p.Next()
	if !ok || !equal(back, rr) {
		return false
	}
	next, ok := p.Next()
	return ok && next.Header().Name == "end."
}

// meta are the types that no zone has (RFC 6895 section 3.1: 128-255, and OPT), ANY aside.
func meta(rrtype uint16) bool {
	return rrtype == dns.TypeOPT || rrtype == dns.TypeNone || rrtype >= 128 && rrtype < 255
}

// apply is RFC 2136 section 3.4.2.
func (d *draft) apply(rr dns.RR) {
	h := rr.Header()
	name := dns.CanonicalName(h.Name)
	apex := name == d.origin
	switch h.Class {
	case dns.ClassINET:
		d.insert(name, rr)
	case dns.ClassANY:
		for t := range d.nodes[name] {
			kept := apex && (t == dns.TypeSOA || t == dns.TypeNS)
			if !kept && (h.Rrtype == dns.TypeANY || h.Rrtype == t) {
				d.put(name, t, nil)
			}
		}
	case dns.ClassNONE:
		lastNS := apex && h.Rrtype == dns.TypeNS && len(d.nodes[name][dns.TypeNS]) == 1
		if h.Rrtype != dns.TypeSOA && !lastNS {
			d.remove(name, rr)
		}
	}
}

func (d *draft) insert(name string, rr dns.RR) {
	switch rr := rr.(type) {
	case *dns.SOA:
		if name != d.origin || int32(rr.Serial-d.SOA().Serial) <= 0 { // RFC 1982
			return
		}
		d.put(name, dns.TypeSOA, nil)
		d.serial = true
	case *dns.CNAME:
		if !d.mayStand(name, dns.TypeCNAME) {
			return
		}
		d.put(name, dns.TypeCNAME, nil)
	default:
		if !d.mayStand(name, rr.Header().Rrtype) {
			return
		}
	}
	d.add(name, rr)
}
