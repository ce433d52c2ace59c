package zone

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/manycast/manycast/internal/record"
)

// cnameMax bounds a chain of aliases within a zone.
const cnameMax = 8

// Answer is what the zone has to say to a question (RFC 1034 section 4.3.2).
type Answer struct {
	Rcode         int
	Authoritative bool
	Answer        []dns.RR
	Authority     []dns.RR
	Additional    []dns.RR
	Record        []dns.RR // TXT with the whole record of the name asked for, if the question was about another type
}

// Lookup answers a question about a name at or below the origin. ANY gets the smallest set (RFC 8482), or all where whole is
// true. TTLs end with the records' time.
func (z *Zone) Lookup(qname string, qtype uint16, whole bool, now time.Time) Answer {
	a := Answer{Authoritative: true}
	name := dns.CanonicalName(qname)
	for range cnameMax {
		if cut := z.cut(name, qtype); cut != "" {
			z.refer(&a, cut)
			return a
		}
		n, owner := z.find(name)
		if n == nil {
			if !z.inner[name] {
				a.Rcode = dns.RcodeNameError
			}
			break
		}
		alias := n[dns.TypeCNAME]
		if alias != nil && qtype != dns.TypeCNAME && qtype != dns.TypeANY {
			a.Answer = append(a.Answer, z.give(alias, name, owner, now)...)
			name = dns.CanonicalName(alias[0].(*dns.CNAME).Target)
			if !dns.IsSubDomain(z.origin, name) {
				return a
			}
			continue
		}
		sets := n.sets(qtype, whole)
		if len(sets) == 0 {
			break
		}
		for _, set := range sets {
			a.Answer = append(a.Answer, z.give(set, name, owner, now)...)
		}
		if qtype != dns.TypeTXT && qtype != dns.TypeANY {
			text := record.TextName(name)
			a.Record = z.give(z.nodes[text][dns.TypeTXT], text, text, now)
		}
		return a
	}
	a.Authority = z.negative()
	return a
}

// sets are the RRsets that answer a question for qtype.
func (n node) sets(qtype uint16, whole bool) [][]dns.RR {
	if qtype != dns.TypeANY {
		if n[qtype] == nil {
			return nil
		}
		return [][]dns.RR{n[qtype]}
	}
	all := slices.Collect(maps.Values(n))
	slices.SortFunc(all, func(a, b []dns.RR) int {
		return cmp.Or(cmp.Compare(size(a), size(b)), cmp.Compare(a[0].Header().Rrtype, b[0].Header().Rrtype))
	})
	if !whole {
		all = all[:1]
	}
	return all
}

func size(set []dns.RR) (sum int) {
	for _, rr := range set {
		sum += dns.Len(rr)
	}
	return sum
}

// find returns the node of a name and the name that it stands under: its own or a wildcard's (RFC 4592).
func (z *Zone) find(name string) (n node, owner string) {
	if n, ok := z.nodes[name]; ok || z.inner[name] {
		return n, name
	}
	for name != z.origin {
		name = parent(name)
		if _, ok := z.nodes[name]; ok || z.inner[name] {
			break // the closest encloser
		}
	}
	return z.nodes["*."+name], "*." + name
}

// cut is the highest delegation at or above name, if there is one. The parent answers for DS itself.
func (z *Zone) cut(name string, qtype uint16) string {
	found := ""
	for at := name; at != z.origin; at = parent(at) {
		if z.nodes[at][dns.TypeNS] != nil && (at != name || qtype != dns.TypeDS) {
			found = at
		}
	}
	return found
}

func (z *Zone) refer(a *Answer, cut string) {
	a.Authoritative = len(a.Answer) > 0
	a.Authority = z.nodes[cut][dns.TypeNS]
	for _, rr := range a.Authority {
		n := z.nodes[dns.CanonicalName(rr.(*dns.NS).Ns)]
		a.Additional = append(a.Additional, n[dns.TypeA]...)
		a.Additional = append(a.Additional, n[dns.TypeAAAA]...)
	}
}

// negative is the SOA with the TTL of the answer that there is nothing (RFC 2308 section 3).
func (z *Zone) negative() []dns.RR {
	soa := dns.Copy(z.SOA()).(*dns.SOA)
	soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl)
	return []dns.RR{soa}
}

// give returns a set as it goes out: under the name asked for, cached no longer than its record lasts.
func (z *Zone) give(set []dns.RR, name, owner string, now time.Time) []dns.RR {
	until, temporary := z.until[owner]
	if name == owner && !temporary {
		return set
	}
	out := make([]dns.RR, len(set))
	for i, rr := range set {
		out[i] = dns.Copy(rr)
		h := out[i].Header()
		h.Name = name
		if temporary {
			h.Ttl = uint32(max(0, min(int64(h.Ttl), int64(until.Sub(now)/time.Second))))
		}
	}
	return out
}
