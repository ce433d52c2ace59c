package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// UnmarshalText parses "node:interface".
func (e *Endpoint) UnmarshalText(text []byte) error {
	node, ifname, ok := strings.Cut(string(text), ":")
	if !ok || node == "" || ifname == "" || len(ifname) > 15 {
		return fmt.Errorf("interface %q: want NODE:INTERFACE, the interface up to 15 characters", text)
	}
	e.Node, e.Interface = node, ifname
	return nil
}

// UnmarshalText parses "a:eth0 b:eth0".
func (l *Link) UnmarshalText(text []byte) error {
	ends := strings.Fields(string(text))
	if len(ends) != 2 {
		return fmt.Errorf("link %q: want two interfaces", text)
	}
	return errors.Join(l.A.UnmarshalText([]byte(ends[0])), l.B.UnmarshalText([]byte(ends[1])))
}

// UnmarshalText parses a list with commas and ranges.
func (a *Addresses) UnmarshalText(text []byte) error {
	for item := range strings.SplitSeq(string(text), ",") {
		prefixes, err := parseRange(strings.TrimSpace(item))
		if err != nil {
			return err
		}
		*a = append(*a, prefixes...)
	}
	return nil
}

// parseRange expands "10.1.0.11-70/16".
func parseRange(text string) (Addresses, error) {
	host, bits, ok := strings.Cut(text, "/")
	first, last, ranged := strings.Cut(host, "-")
	p, err := netip.ParsePrefix(first + "/" + bits)
	if err != nil || !ok || !p.Addr().Is4() {
		return nil, fmt.Errorf("address %q: want ADDRESS/LENGTH or ADDRESS-LAST/LENGTH", text)
	}
	b := p.Addr().As4()
	end := int(b[3])
	if ranged {
		if end, err = strconv.Atoi(last); err != nil || end < int(b[3]) || end > 255 {
			return nil, fmt.Errorf("address %q: the range ends before it starts", text)
		}
	}
	var out Addresses
	for h := int(b[3]); h <= end; h++ {
		b[3] = byte(h)
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(b), p.Bits()))
	}
	return out, nil
}

// UnmarshalText parses a route.
func (r *Route) UnmarshalText(text []byte) (err error) {
	f := strings.Fields(string(text))
	if len(f) != 3 || f[1] != "via" && f[1] != "dev" {
		return fmt.Errorf("route %q: want PREFIX via ADDRESS, or PREFIX dev INTERFACE", text)
	}
	if f[0] == "default" {
		f[0] = "0.0.0.0/0"
	}
	if r.To, err = netip.ParsePrefix(f[0]); err != nil {
		return err
	}
	if f[1] == "dev" {
		r.Dev = f[2]
		return nil
	}
	r.Via, err = netip.ParseAddr(f[2])
	return err
}
