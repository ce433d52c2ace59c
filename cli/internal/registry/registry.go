// Package registry reads and writes group records in the zones of a key-bearing DNS server, signed in both directions.
package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/manycast/manycast/internal/record"
)

// What callers tell apart with errors.Is.
var (
	ErrNameTaken    = errors.New("name is taken")
	ErrAddressTaken = errors.New("address is taken")
	// ErrChanged: somebody else changed the record.
	ErrChanged = errors.New("changed meanwhile: try again")
)

// Registry is a server and the key to talk to it.
type Registry struct {
	Server  string // address:port, TCP
	KeyName string // TSIG, hmac-sha256
	Secret  string // base64
	TTL     uint32 // of records written, seconds
	Now     func() time.Time
}

// Find gets the record of a name and its TTL in seconds, or record.ErrNone.
func (g *Registry) Find(ctx context.Context, name string) (r record.Record, ttl uint32, err error) {
	r, ttl, err = g.at(ctx, record.TextName(name))
	if err == nil && r.Name != name {
		return record.Record{}, 0, fmt.Errorf("%s: the record there is of %s", name, r.Name)
	}
	return r, ttl, err
}

// FindAddress gets the record of an address and its TTL in seconds, or record.ErrNone.
func (g *Registry) FindAddress(ctx context.Context, a netip.Addr) (r record.Record, ttl uint32, err error) {
	r, ttl, err = g.at(ctx, record.TextName(record.ReverseName(a)))
	if err == nil && r.Address != a {
		return record.Record{}, 0, fmt.Errorf("%s: the record there is of %s", a, r.Address)
	}
	return r, ttl, err
}

func (g *Registry) at(ctx context.Context, name string) (r record.Record, ttl uint32, err error) {
	answer, err := g.exchange(ctx, new(dns.Msg).SetQuestion(name, dns.TypeTXT))
	if err != nil {
		return record.Record{}, 0, err
	}
	switch answer.Rcode {
	case dns.RcodeSuccess:
		if r, err = record.ParseRRs(answer.Answer); err != nil {
			return record.Record{}, 0, err
		}
		return r, answer.Answer[0].Header().Ttl, nil
	case dns.RcodeNameError:
		return record.Record{}, 0, record.ErrNone
	case dns.RcodeRefused:
		return record.Record{}, 0, g.noZone(name)
	}
	return record.Record{}, 0, g.refused("query "+name, answer)
}

// List transfers a zone and returns the records in it, in order of their names, each once.
func (g *Registry) List(ctx context.Context, zone string) ([]record.Record, error) {
	m := new(dns.Msg).SetAxfr(dns.Fqdn(zone))
	m.SetTsig(g.KeyName, dns.HmacSHA256, 300, g.Now().Unix())
	conn, err := g.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	t := &dns.Transfer{Conn: conn, TsigSecret: map[string]string{g.KeyName: g.Secret}}
	envelopes, err := t.In(m, g.Server)
	if err != nil {
		return nil, fmt.Errorf("transfer of %s from %s: %w", zone, g.Server, err)
	}
	var out []record.Record
	seen := map[string]bool{}
	for e := range envelopes {
		if e.Error != nil {
			return nil, fmt.Errorf("transfer of %s from %s: %w (is the zone there, and may key %s transfer it?)", zone, g.Server, e.Error, g.KeyName)
		}
		for _, rr := range e.RR {
			txt, ok := rr.(*dns.TXT)
			if !ok {
				continue
			}
			r, err := record.ParseStrings(txt.Txt)
			if err != nil || seen[r.Name+r.Address.String()] {
				continue // not a record, or one of another version
			}
			seen[r.Name+r.Address.String()] = true
			out = append(out, r)
		}
	}
	return out, nil
}

// side is one of the two zones that a record is in.
type side struct {
	name  func(record.Record) string
	rrs   func(record.Record, uint32) []dns.RR
	taken error
}

var (
	forward = side{func(r record.Record) string { return r.Name }, record.Record.Forward, ErrNameTaken}
	reverse = side{func(r record.Record) string { return record.ReverseName(r.Address) }, record.Record.Reverse, ErrAddressTaken}
)

// Replace puts next in the place of prev, in the zones of its address and of its name; nil is no record. Both zones change, or
// neither: what went through is taken back where the other one does not.
func (g *Registry) Replace(ctx context.Context, prev, next *record.Record) error {
	if err := g.replace(ctx, prev, next, reverse); err != nil {
		return err
	}
	err := g.replace(ctx, prev, next, forward)
	if err == nil {
		return nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if back := g.replace(undo, next, prev, reverse); back != nil {
		return fmt.Errorf("%w; and the reverse zone could not be set back: %w", err, back)
	}
	return err
}

// replace is one update of one zone, bound to what is there now.
func (g *Registry) replace(ctx context.Context, prev, next *record.Record, s side) error {
	some := prev
	if some == nil {
		some = next
	}
	name := s.name(*some)
	zone, err := g.zone(ctx, name)
	if err != nil {
		return err
	}
	m := new(dns.Msg).SetUpdate(zone)
	if prev == nil {
		m.RRsetNotUsed(exclusive(s.rrs(*next, 0)))
	} else {
		all := s.rrs(*prev, 0)
		m.Used([]dns.RR{dns.Copy(all[len(all)-1])}) // the TXT at TextName, which has it all; Remove writes into its RRs
		m.Remove(all)
	}
	if next != nil {
		m.Insert(s.rrs(*next, g.TTL))
	}
	answer, err := g.exchange(ctx, m)
	if err != nil {
		return err
	}
	switch answer.Rcode {
	case dns.RcodeSuccess:
		return nil
	case dns.RcodeYXDomain, dns.RcodeYXRrset:
		return fmt.Errorf("%s: %w", name, s.taken)
	case dns.RcodeNXRrset, dns.RcodeNameError:
		return fmt.Errorf("%s: %w", name, ErrChanged)
	}
	return g.refused("update of "+zone, answer)
}

// exclusive are the RRs of a record that nobody else may have under its names: address, PTR and the text. Other data, such as a
// TXT of some other purpose, may be there and stays.
func exclusive(rrs []dns.RR) (out []dns.RR) {
	for i, rr := range rrs {
		switch rr.Header().Rrtype {
		case dns.TypeA, dns.TypeAAAA, dns.TypePTR:
			out = append(out, rr)
		case dns.TypeTXT:
			if i == len(rrs)-1 {
				out = append(out, rr)
			}
		}
	}
	return out
}

// zone asks which of the server's zones a name lies in.
func (g *Registry) zone(ctx context.Context, name string) (string, error) {
	answer, err := g.exchange(ctx, new(dns.Msg).SetQuestion(name, dns.TypeSOA))
	if err != nil {
		return "", err
	}
	for _, rr := range append(answer.Answer, answer.Ns...) {
		if soa, ok := rr.(*dns.SOA); ok && answer.Authoritative && dns.IsSubDomain(soa.Hdr.Name, name) {
			return soa.Hdr.Name, nil
		}
	}
	return "", g.noZone(name)
}

func (g *Registry) noZone(name string) error {
	return fmt.Errorf("DNS server %s has no zone for %s: add a [[zone]] to its dnsd.toml, or name another server with --dns", g.Server, name)
}

func (g *Registry) dial(ctx context.Context) (*dns.Conn, error) {
	c := &dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	conn, err := c.DialContext(ctx, g.Server)
	if err != nil {
		return nil, fmt.Errorf("DNS server %s: %w (is dnsd running there? name another with --dns)", g.Server, err)
	}
	return conn, nil
}

// exchange signs the message and takes no answer that is not signed.
func (g *Registry) exchange(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	conn, err := g.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	m.SetTsig(g.KeyName, dns.HmacSHA256, 300, g.Now().Unix())
	c := &dns.Client{Net: "tcp", Timeout: 5 * time.Second, TsigSecret: map[string]string{g.KeyName: g.Secret}}
	answer, _, err := c.ExchangeWithConnContext(ctx, m, conn)
	if answer != nil && answer.Rcode == dns.RcodeNotAuth && answer.IsTsig() != nil {
		return nil, g.refused("signature", answer)
	}
	if err != nil {
		return nil, fmt.Errorf("DNS server %s: %w", g.Server, err)
	}
	if answer.IsTsig() == nil {
		return nil, fmt.Errorf("DNS server %s: its answer (%s) is not signed", g.Server, dns.RcodeToString[answer.Rcode])
	}
	return answer, nil
}

func (g *Registry) refused(what string, answer *dns.Msg) error {
	hint := ""
	t := answer.IsTsig()
	switch {
	case t != nil && t.Error == dns.RcodeBadTime:
		hint = ": the clocks differ by more than five minutes"
	case t != nil && (t.Error == dns.RcodeBadKey || t.Error == dns.RcodeBadSig):
		hint = ": it does not know key " + g.KeyName + " with this secret (--tsig NAME=FILE; [[tsig]] of its dnsd.toml)"
	case answer.Rcode == dns.RcodeRefused:
		hint = ": key " + g.KeyName + " may not do that (update = true in its dnsd.toml)"
	case answer.Rcode == dns.RcodeServerFailure:
		hint = ": see its log; a full disk does that"
	}
	return fmt.Errorf("%s: DNS server %s says %s%s", what, g.Server, dns.RcodeToString[answer.Rcode], hint)
}
