package record

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// eddsa is the IPSECKEY algorithm of RFC 9373; the key is bare, as in RFC 8080.
const eddsa = 4

// ReverseName is the address' name under in-addr.arpa. or ip6.arpa.
func ReverseName(a netip.Addr) string {
	name, err := dns.ReverseAddr(a.String())
	if err != nil {
		return "" // the zero Addr alone
	}
	return name
}

// TextName is where the record's readable copy is, whatever other TXT the name itself has.
func TextName(name string) string { return "_manycast." + name }

// RRs are all of the record's RRs, for the zone of its name and the zone of its address.
func (r Record) RRs(ttl uint32) []dns.RR { return append(r.Forward(ttl), r.Reverse(ttl)...) }

// Forward are the RRs under the record's name: A or AAAA, RP, IPSECKEY for each key, APL with all destinations, TXT; the TXT again at
// TextName.
func (r Record) Forward(ttl uint32) []dns.RR { return r.under(r.Name, ttl) }

// Reverse are the same RRs under the reverse name, and PTR: whoever has the address gets the whole record as well.
func (r Record) Reverse(ttl uint32) []dns.RR {
	name := ReverseName(r.Address)
	ptr := &dns.PTR{Hdr: header(name, dns.TypePTR, ttl), Ptr: r.Name}
	return append([]dns.RR{ptr}, r.under(name, ttl)...)
}

func header(name string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

func (r Record) under(name string, ttl uint32) []dns.RR {
	var out []dns.RR
	if r.Address.Is4() {
		out = append(out, &dns.A{Hdr: header(name, dns.TypeA, ttl), A: net.IP(r.Address.AsSlice())})
	} else {
		out = append(out, &dns.AAAA{Hdr: header(name, dns.TypeAAAA, ttl), AAAA: net.IP(r.Address.AsSlice())})
	}
	out = append(out, &dns.RP{Hdr: header(name, dns.TypeRP, ttl), Mbox: mailbox(r.Owner), Txt: TextName(r.Name)})
	for _, k := range r.Keys {
		out = append(out, &dns.IPSECKEY{Hdr: header(name, dns.TypeIPSECKEY, ttl), Precedence: 10, GatewayType: dns.IPSECGatewayNone,
			Algorithm: eddsa, GatewayHost: ".", PublicKey: base64.StdEncoding.EncodeToString(k.Public)})
	}
	if len(r.Destinations) > 0 {
		out = append(out, &dns.APL{Hdr: header(name, dns.TypeAPL, ttl), Prefixes: r.prefixes()})
	}
	for _, n := range []string{name, TextName(name)} {
		out = append(out, &dns.TXT{Hdr: header(n, dns.TypeTXT, ttl), Txt: r.Strings()})
	}
	return out
}

// prefixes are the destinations as APL has them (RFC 3123).
func (r Record) prefixes() []dns.APLPrefix {
	out := make([]dns.APLPrefix, len(r.Destinations))
	for i, p := range r.Destinations {
		ip := net.IP(p.Addr().AsSlice())
		out[i].Network = net.IPNet{IP: ip, Mask: net.CIDRMask(p.Bits(), 8*len(ip))}
	}
	return out
}

// mailbox is a mail address as a domain name (RFC 1035 section 8): dots of the local part are escaped.
func mailbox(owner string) string {
	local, domain, _ := strings.Cut(owner, "@")
	return strings.ReplaceAll(local, ".", `\.`) + "." + dns.Fqdn(domain)
}

// ParseRRs reads the record from RRs of one answer, or of several about the same group. The TXT has it all; other RRs under the
// record's names have to agree with it. No record at all is ErrNone. Whoever asked for a name or an address has to check
// that the record is about that.
func ParseRRs(rrs []dns.RR) (Record, error) {
	var r Record
	found := false
	for _, rr := range rrs {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		got, err := ParseStrings(txt.Txt)
		switch {
		case errors.Is(err, ErrNone):
		case err != nil:
			return Record{}, fmt.Errorf("%s: %w", txt.Hdr.Name, err)
		case found && !got.Equal(r):
			return Record{}, fmt.Errorf("%s: two different records in one answer", txt.Hdr.Name)
		default:
			r, found = got, true
		}
		if err == nil && !r.hasName(txt.Hdr.Name) {
			return Record{}, fmt.Errorf("%s: record of %s, %s under a name of neither", txt.Hdr.Name, r.Name, r.Address)
		}
	}
	if !found {
		return Record{}, ErrNone
	}
	return r, r.agree(rrs)
}

// hasName says whether name is one of the four under which the record is.
func (r Record) hasName(name string) bool {
	name = strings.TrimPrefix(strings.ToLower(name), "_manycast.")
	return name == r.Name || name == ReverseName(r.Address)
}

// agree checks the RRs that other readers of the DNS use against the text. A type that was not asked for is not missed.
func (r Record) agree(rrs []dns.RR) error {
	type count struct{ seen, same int }
	var address, owner, name, destinations count
	keys := map[string][]uint32{} // by owner name of the RR
	for _, rr := range rrs {
		if !r.hasName(rr.Header().Name) {
			continue
		}
		var c *count
		same := false
		switch rr := rr.(type) {
		case *dns.A:
			a, _ := netip.AddrFromSlice(rr.A.To4())
			c, same = &address, a == r.Address
		case *dns.AAAA:
			a, _ := netip.AddrFromSlice(rr.AAAA.To16())
			c, same = &address, a == r.Address
		case *dns.RP:
			c, same = &owner, strings.EqualFold(rr.Mbox, mailbox(r.Owner))
		case *dns.PTR:
			c, same = &name, strings.EqualFold(rr.Ptr, r.Name)
		case *dns.APL:
			c, same = &destinations, r.sameDestinations(rr)
		case *dns.IPSECKEY:
			id, err := r.keyOf(rr)
			if err != nil {
				return err
			}
			keys[rr.Hdr.Name] = append(keys[rr.Hdr.Name], id)
			continue
		default:
			continue
		}
		c.seen++
		if same {
			c.same++
		}
	}
	for what, c := range map[string]count{"address": address, "owner (RP)": owner, "name (PTR)": name, "destinations (APL)": destinations} {
		if c.seen > 0 && c.same == 0 {
			return fmt.Errorf("%s: %s of the text and of the other RRs do not agree", r.Name, what)
		}
	}
	for at, ids := range keys {
		slices.Sort(ids)
		if len(slices.Compact(ids)) != len(r.Keys) {
			return fmt.Errorf("%s: %d IPSECKEY RRs for %d keys in the text", at, len(ids), len(r.Keys))
		}
	}
	return nil
}

func (r Record) sameDestinations(rr *dns.APL) bool {
	same := func(a, b dns.APLPrefix) bool {
		return a.Negation == b.Negation && a.Network.IP.Equal(b.Network.IP) && bytes.Equal(a.Network.Mask, b.Network.Mask)
	}
	return slices.EqualFunc(r.prefixes(), rr.Prefixes, same)
}

func (r Record) keyOf(rr *dns.IPSECKEY) (uint32, error) {
	if rr.Algorithm == eddsa {
		if public, err := parsePublic(rr.PublicKey); err == nil {
			if known, ok := r.Key(KeyID(public)); ok && bytes.Equal(known, public) {
				return KeyID(public), nil
			}
		}
	}
	return 0, fmt.Errorf("%s: IPSECKEY with a key that the text does not have", rr.Hdr.Name)
}
