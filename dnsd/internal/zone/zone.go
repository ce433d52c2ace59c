// Package zone is authoritative data: immutable zones that are looked up without a lock, changed by making the next one
// (RFC 2136), and kept on disk.
package zone

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/manycast/manycast/internal/record"
)

// namesMax bounds what updates can make of a zone.
const namesMax = 200_000

// Zone is one version of a zone. It never changes; its RRs are shared and must not be written to.
type Zone struct {
	origin string
	nodes  map[string]node      // by lower-case FQDN
	inner  map[string]bool      // names that have no RRs but names below them that do
	until  map[string]time.Time // names whose records are temporary
}

// node is the RRsets of one name, by type; no set is empty.
type node map[uint16][]dns.RR

// New makes a zone of its RRs: one SOA and at least one NS at the origin, nothing out of zone.
func New(origin string, rrs []dns.RR) (*Zone, error) {
	d := draft{Zone: &Zone{origin: dns.CanonicalName(origin), nodes: map[string]node{}, until: map[string]time.Time{}}}
	for _, rr := range rrs {
		h := rr.Header()
		name := dns.CanonicalName(h.Name)
		switch {
		case !dns.IsSubDomain(d.origin, name):
			return nil, fmt.Errorf("%s is not in zone %s", h.Name, d.origin)
		case h.Class != dns.ClassINET:
			return nil, fmt.Errorf("%s: class %s, want IN", h.Name, dns.Class(h.Class))
		case h.Rrtype == dns.TypeSOA && (name != d.origin || d.nodes[name][dns.TypeSOA] != nil):
			return nil, fmt.Errorf("%s: more than one SOA, or not at the zone's name", h.Name)
		case !d.mayStand(name, h.Rrtype):
			return nil, fmt.Errorf("%s: CNAME beside other data", h.Name)
		}
		d.add(name, rr)
	}
	apex := d.nodes[d.origin]
	if apex[dns.TypeSOA] == nil || apex[dns.TypeNS] == nil {
		return nil, fmt.Errorf("zone %s has no SOA or no NS", d.origin)
	}
	return d.done(), nil
}

// Origin is the zone's name.
func (z *Zone) Origin() string { return z.origin }

// SOA is the zone's SOA.
func (z *Zone) SOA() *dns.SOA { return z.nodes[z.origin][dns.TypeSOA][0].(*dns.SOA) }

// RRs are all of the zone, the SOA first, in a stable order.
func (z *Zone) RRs() []dns.RR {
	out := []dns.RR{z.SOA()}
	names := slices.Sorted(maps.Keys(z.nodes))
	if i := slices.Index(names, z.origin); i > 0 {
		names = append([]string{z.origin}, slices.Delete(names, i, i+1)...)
	}
	for _, name := range names {
		for _, t := range slices.Sorted(maps.Keys(z.nodes[name])) {
			if t != dns.TypeSOA {
				out = append(out, z.nodes[name][t]...)
			}
		}
	}
	return out
}

// Expiry is when the next temporary record ends; zero: never.
func (z *Zone) Expiry() time.Time {
	var first time.Time
	for _, t := range z.until {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	return first
}

// Expire is the zone without the temporary records that are over at now. Other data under their names stays.
func (z *Zone) Expire(now time.Time) *Zone {
	d := z.draft()
	for name, until := range z.until {
		if now.Before(until) {
			continue
		}
		for _, rr := range z.nodes[name][dns.TypeTXT] {
			r, err := record.ParseStrings(rr.(*dns.TXT).Txt)
			if err != nil || !r.Expired(now) {
				continue
			}
			for _, gone := range r.RRs(0) {
				d.remove(dns.CanonicalName(gone.Header().Name), gone)
			}
		}
	}
	if !d.changed {
		return z
	}
	d.bump()
	return d.done()
}

// draft is a zone in the making. What it shares with the zone before it is replaced, never written to.
type draft struct {
	*Zone
	changed bool
	serial  bool // the SOA was replaced on purpose
}

func (z *Zone) draft() *draft {
	return &draft{Zone: &Zone{origin: z.origin, nodes: maps.Clone(z.nodes), until: maps.Clone(z.until)}}
}

// done works out the inner names and gives the zone away.
func (d *draft) done() *Zone {
	d.inner = map[string]bool{}
	for name := range d.nodes {
		for name != d.origin {
			name = parent(name)
			if _, ok := d.nodes[name]; ok || d.inner[name] {
				break // its own ancestors are seen to
			}
			d.inner[name] = true
		}
	}
	return d.Zone
}

// put replaces an RRset; none removes it.
func (d *draft) put(name string, rrtype uint16, set []dns.RR) {
	n := maps.Clone(d.nodes[name])
	if n == nil {
		n = node{}
	}
	delete(n, rrtype)
	if len(set) > 0 {
		n[rrtype] = set
	}
	d.nodes[name] = n
	if len(n) == 0 {
		delete(d.nodes, name)
	}
	if rrtype == dns.TypeTXT {
		d.noteUntil(name, set)
	}
	d.changed = true
}

func (d *draft) noteUntil(name string, set []dns.RR) {
	delete(d.until, name)
	for _, rr := range set {
		r, err := record.ParseStrings(rr.(*dns.TXT).Txt)
		if err != nil || r.Until.IsZero() {
			continue
		}
		if old, ok := d.until[name]; !ok || r.Until.Before(old) {
			d.until[name] = r.Until
		}
	}
}

// add puts rr into its set; one with the same data is replaced, and the TTL becomes the whole set's (RFC 2181 section 5.2).
func (d *draft) add(name string, rr dns.RR) {
	rr = dns.Copy(rr)
	h := rr.Header()
	h.Name, h.Class = name, dns.ClassINET
	set := slices.Clone(d.nodes[name][h.Rrtype])
	same := false
	for i, old := range set {
		if dns.IsDuplicate(old, rr) {
			if old.Header().Ttl == h.Ttl {
				return
			}
			same = true
		}
		if old.Header().Ttl != h.Ttl {
			set[i] = dns.Copy(old)
			set[i].Header().Ttl = h.Ttl
		}
	}
	if !same {
		set = append(set, rr)
	}
	d.put(name, h.Rrtype, set)
}

// remove takes one RR out of its set, whatever its TTL.
func (d *draft) remove(name string, rr dns.RR) {
	rr = dns.Copy(rr)
	h := rr.Header()
	h.Name, h.Class = name, dns.ClassINET
	old := d.nodes[name][h.Rrtype]
	set := slices.DeleteFunc(slices.Clone(old), func(o dns.RR) bool { return dns.IsDuplicate(o, rr) })
	if len(set) < len(old) {
		d.put(name, h.Rrtype, set)
	}
}

// mayStand says whether a type may be under a name: a CNAME stands alone.
func (d *draft) mayStand(name string, rrtype uint16) bool {
	n := d.nodes[name]
	if rrtype == dns.TypeCNAME {
		return len(n) == 0 || n[dns.TypeCNAME] != nil
	}
	return n[dns.TypeCNAME] == nil
}

// bump gives a changed zone its next serial (RFC 1982; zero is left out, some secondaries dislike it).
func (d *draft) bump() {
	if d.serial {
		return
	}
	soa := dns.Copy(d.SOA()).(*dns.SOA)
	if soa.Serial++; soa.Serial == 0 {
		soa.Serial = 1
	}
	d.put(d.origin, dns.TypeSOA, []dns.RR{soa})
}

// parent cuts the first label off.
func parent(name string) string {
	next, end := dns.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[next:]
}
