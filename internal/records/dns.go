package records

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/manycast/manycast/internal/record"
)

const (
	serverTimeout = 700 * time.Millisecond // then the next server is asked
	udpSize       = 1232
	tsigFudge     = 300 // seconds, RFC 8945 section 10
)

// DNSConfig says whom to ask and why the answer is theirs: TSIG, or TLS.
type DNSConfig struct {
	Servers    []string // address:port, asked in turn
	TLS        *tls.Config
	TSIGName   string
	TSIGSecret string // base64
}

// DNS asks key-bearing DNS servers for the readable copy of a record under its reverse name.
type DNS struct {
	cfg DNSConfig
}

// NewDNS makes the source.
func NewDNS(cfg DNSConfig) *DNS {
	cfg.TSIGName = strings.ToLower(dns.Fqdn(cfg.TSIGName))
	return &DNS{cfg}
}

// Fetch implements Source: the first server that gives an authenticated answer counts.
func (d *DNS) Fetch(ctx context.Context, address netip.Addr) (record.Record, time.Duration, error) {
	var failed error
	for _, server := range d.cfg.Servers {
		r, ttl, err := d.ask(ctx, server, address)
		if err == nil || errors.Is(err, record.ErrNone) {
			return r, ttl, err
		}
		failed = errors.Join(failed, fmt.Errorf("record of %v from %s: %w", address, server, err))
	}
	return record.Record{}, 0, failed
}

func (d *DNS) ask(ctx context.Context, server string, address netip.Addr) (record.Record, time.Duration, error) {
	name := record.TextName(record.ReverseName(address))
	reply, err := d.exchange(ctx, server, name)
	if err != nil {
		return record.Record{}, 0, err
	}
	switch reply.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		return record.Record{}, 0, record.ErrNone
	default:
		return record.Record{}, 0, fmt.Errorf("server says %s", dns.RcodeToString[reply.Rcode])
	}
	var answer []dns.RR
	ttl := uint32(1 << 31)
	for _, rr := range reply.Answer {
		if h := rr.Header(); h.Rrtype == dns.TypeTXT && h.Class == dns.ClassINET && strings.EqualFold(h.Name, name) {
			answer = append(answer, rr)
			ttl = min(ttl, h.Ttl)
		}
	}
	r, err := record.ParseRRs(answer)
	if err != nil {
		return record.Record{}, 0, err
	}
	if r.Address != address {
		return record.Record{}, 0, fmt.Errorf("answer is about %v", r.Address)
	}
	return r, time.Duration(ttl) * time.Second, nil
}

// exchange asks one question; over UDP a truncated answer is asked for again over TCP.
func (d *DNS) exchange(ctx context.Context, server, name string) (*dns.Msg, error) {
	if d.cfg.TLS != nil {
		return d.once(ctx, "tcp-tls", server, name)
	}
	reply, err := d.once(ctx, "udp", server, name)
	if err == nil && reply.Truncated {
		return d.once(ctx, "tcp", server, name)
	}
	return reply, err
}

func (d *DNS) once(ctx context.Context, network, server, name string) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
	query.RecursionDesired = false
	query.SetEdns0(udpSize, false)
	client := &dns.Client{Net: network, TLSConfig: d.cfg.TLS, Timeout: serverTimeout, UDPSize: udpSize}
	signed := d.cfg.TLS == nil
	if signed {
		query.SetTsig(d.cfg.TSIGName, dns.HmacSHA256, tsigFudge, time.Now().Unix())
		client.TsigSecret = map[string]string{d.cfg.TSIGName: d.cfg.TSIGSecret}
	}
	reply, _, err := client.ExchangeContext(ctx, query, server)
	if err != nil {
		return nil, err
	}
	if len(reply.Question) != 1 || !strings.EqualFold(reply.Question[0].Name, name) || reply.Question[0].Qtype != dns.TypeTXT {
		return nil, errors.New("answer to another question")
	}
	// The library verifies a signature that is there; one that is missing is for us to miss.
	if t := reply.IsTsig(); signed && (t == nil || !strings.EqualFold(t.Hdr.Name, d.cfg.TSIGName)) {
		return nil, errors.New("answer is not signed with " + d.cfg.TSIGName)
	}
	return reply, nil
}
