package igmp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

const (
	queryV3Bytes = 12

	queryExtension = 1 << 7 // E bit, RFC 9279 section 3.1
	querySuppress  = 1 << 3
	queryQRV       = 0x7

	// v1MaxResp is the response time of an IGMPv1 query, which does not carry one (RFC 3376 section 7.2.1).
	v1MaxResp = 10 * time.Second
)

// Query is a membership query of any version (RFC 3376 sections 4.1 and 7.1). The fields after Group are those of IGMPv3.
type Query struct {
	Version    int           // 1, 2 or 3
	MaxResp    time.Duration // in 0.1 s; at most 25.5 s in IGMPv2, 3174.4 s in IGMPv3; 10 s in IGMPv1
	Group      netip.Addr    // 0.0.0.0 in a general query
	Suppress   bool          // S flag: suppress router-side processing
	QRV        uint8         // querier's robustness, 0..7; more is sent as 0
	QQI        time.Duration // querier's query interval, in 1 s, at most 31744 s
	Sources    []netip.Addr
	Extensions []Extension // of RFC 9279
	// ExtensionErr says why an extension that the E bit announced was ignored (RFC 9279 section 5); not sent.
	ExtensionErr error
}

// General reports whether the query asks for all groups.
func (q Query) General() bool { return !q.Group.IsValid() || q.Group.IsUnspecified() }

// parseQuery tells versions by length and response code, as RFC 3376 section 7.1 has it.
func parseQuery(b []byte) (Message, error) {
	q := Query{Group: addr4(b[4:])}
	switch {
	case len(b) == headerBytes && b[1] == 0:
		q.Version, q.MaxResp = 1, v1MaxResp
		return q, nil
	case len(b) == headerBytes:
		q.Version, q.MaxResp = 2, time.Duration(b[1])*100*time.Millisecond
		return q, nil
	case len(b) < queryV3Bytes:
		return nil, fmt.Errorf("igmp: %w: a query has 8 bytes or at least 12, not %d", ErrMalformed, len(b))
	}
	q.Version = 3
	q.MaxResp = time.Duration(decodeFloat(b[1])) * 100 * time.Millisecond
	q.Suppress = b[8]&querySuppress != 0
	q.QRV = b[8] & queryQRV
	q.QQI = time.Duration(decodeFloat(b[9])) * time.Second
	var err error
	rest := b[queryV3Bytes:]
	if q.Sources, rest, err = parseAddrs(rest, int(binary.BigEndian.Uint16(b[10:]))); err != nil {
		return nil, err
	}
	if b[8]&queryExtension != 0 {
		q.Extensions, q.ExtensionErr = parseExtensions(rest)
	}
	return q, nil
}

// Append implements Message. Times are rounded down to what their codes can say, and cut at the largest.
func (q Query) Append(b []byte) ([]byte, error) {
	start := len(b)
	group := q.Group
	if !group.IsValid() {
		group = netip.IPv4Unspecified()
	}
	tenths := max(0, q.MaxResp/(100*time.Millisecond))
	var code byte
	switch q.Version {
	case 1:
	case 2:
		code = byte(min(max(tenths, 1), 255)) // 0 would make it a query of IGMPv1
	case 3:
		code = encodeFloat(uint64(tenths))
	default:
		return nil, fmt.Errorf("igmp: %w: query of version %d", ErrMalformed, q.Version)
	}
	b, err := appendAddr(append(b, TypeQuery, code, 0, 0), group, "group")
	if err != nil {
		return nil, err
	}
	if q.Version == 3 {
		if b, err = q.appendV3(b); err != nil {
			return nil, err
		}
	}
	return seal(b, start)
}

func (q Query) appendV3(b []byte) ([]byte, error) {
	if len(q.Sources) > 0xffff {
		return nil, fmt.Errorf("igmp: %w: %d sources in a query", ErrMalformed, len(q.Sources))
	}
	var flags byte
	if q.QRV <= queryQRV {
		flags = q.QRV
	}
	if q.Suppress {
		flags |= querySuppress
	}
	if len(q.Extensions) > 0 {
		flags |= queryExtension
	}
	b = append(b, flags, encodeFloat(uint64(max(0, q.QQI/time.Second))))
	b = binary.BigEndian.AppendUint16(b, uint16(len(q.Sources)))
	b, err := appendAddrs(b, q.Sources)
	if err != nil {
		return nil, err
	}
	return appendExtensions(b, q.Extensions)
}
