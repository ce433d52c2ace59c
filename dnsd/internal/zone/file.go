package zone

import (
	"bytes"
	"fmt"
	"os"

	"github.com/miekg/dns"
)

// ReadFile reads a master file (RFC 1035 section 5). $INCLUDE is refused.
func ReadFile(path, origin string) (*Zone, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("zone %s: %w", origin, err)
	}
	defer f.Close()
	var rrs []dns.RR
	p := dns.NewZoneParser(f, dns.Fqdn(origin), path)
	p.SetDefaultTTL(300)
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		rrs = append(rrs, rr)
	}
	if err := p.Err(); err != nil {
		return nil, fmt.Errorf("zone %s: %s: %w", origin, path, err)
	}
	z, err := New(origin, rrs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return z, nil
}

// text is the zone as a master file.
func (z *Zone) text() []byte {
	var buf bytes.Buffer
	fmt.Fprintf(&buf, "; %s, written by dnsd after every update; edit it only while dnsd is stopped\n", z.origin)
	for _, rr := range z.RRs() {
		buf.WriteString(line(rr))
	}
	return buf.Bytes()
}

// line is an RR in a master file. The parser (miekg/dns 1.1.73) reads one token too many behind an IPSECKEY: an empty line.
func line(rr dns.RR) string {
	if rr.Header().Rrtype == dns.TypeIPSECKEY {
		return rr.String() + "\n\n"
	}
	return rr.String() + "\n"
}
