// Package exchange follows the bytes of one HTTP/1.1 connection in both directions, and knows when it is between two requests: every request
// that has begun is whole, and every one has a whole answer (RFC 9112). It changes and keeps no bytes: it only says where they are.
//
// It is strict. What two parsers may read differently, or what is no HTTP/1 at all, makes the connection opaque for the rest of its life: it is
// never between requests again. So is a connection that ends after an answer, and one whose server says what nobody has asked for, which is
// how a server shows that it has seen other requests than were seen here.
package exchange

import "slices"

// Reason says why a connection is opaque; empty: it is not, or what was looked at is no reason.
type Reason string

const (
	TLS     Reason = "tls"     // it begins as TLS does
	HTTP2   Reason = "http2"   // it begins as HTTP/2 with prior knowledge does
	Tunnel  Reason = "tunnel"  // CONNECT or Upgrade was granted
	Closing Reason = "closing" // one end has said that nothing follows this request
	Unknown Reason = "opaque"  // all else: another protocol, or HTTP/1 that can be misread
)

// Reasons are all there are.
var Reasons = [...]Reason{TLS, HTTP2, Tunnel, Closing, Unknown}

const (
	// MaxHead bounds heads and trailers, in bytes.
	MaxHead = 64 << 10
	// MaxPipelined bounds requests without an answer.
	MaxPipelined = 256
)

// Exchange is one connection. The zero value is one on which nothing has passed.
type Exchange struct {
	up, down stream
	asked    []request // requests whose head has passed, without a whole answer, in order
	requests uint64    // whose head has passed
	opaque   Reason
}

// Resume is a connection that was between requests, after so many of them.
func Resume(requests uint64) Exchange { return Exchange{requests: requests} }

// Requests is how many requests have begun.
func (x *Exchange) Requests() uint64 { return x.requests }

// Opaque says why the connection is not followed any more.
func (x *Exchange) Opaque() Reason { return x.opaque }

// Between reports whether the connection is between two requests, or before the first.
func (x *Exchange) Between() bool {
	return x.opaque == "" && len(x.asked) == 0 && x.up.between() && x.down.between()
}

// Request follows bytes of the user's. It is called before they are passed on, so that the answer cannot overtake it.
func (x *Exchange) Request(p []byte) {
	if x.opaque == "" && x.requests == 0 && x.up.between() && len(p) > 0 && p[0] == tlsHandshake {
		x.end(TLS)
	}
	for x.opaque == "" && len(p) > 0 {
		rest, head, why := x.up.next(p)
		if head != nil {
			why = x.ask(head)
		}
		x.end(why)
		p = rest
	}
}

// tlsHandshake is the first byte of a ClientHello's record.
const tlsHandshake = 0x16

// Response follows bytes of the server's.
func (x *Exchange) Response(p []byte) {
	for x.opaque == "" && len(p) > 0 {
		if len(x.asked) == 0 {
			x.end(Unknown)
			return
		}
		rest, head, why := x.down.next(p)
		if head != nil {
			why = x.answer(head)
		}
		x.end(why)
		p = rest
		if x.opaque == "" && x.down.between() && x.down.final {
			x.asked = slices.Delete(x.asked, 0, 1)
		}
	}
}

// ask takes a request's head.
func (x *Exchange) ask(head []byte) Reason {
	r, why := parseRequest(head)
	if why != "" {
		return why
	}
	x.requests++
	if len(x.asked) == MaxPipelined {
		return Unknown
	}
	x.asked = append(x.asked, r)
	x.up.body(r.body)
	return ""
}

// answer takes a response's head.
func (x *Exchange) answer(head []byte) Reason {
	r, why := parseResponse(head, x.asked[0])
	if why != "" {
		return why
	}
	x.down.final = r.final
	if r.final && x.asked[0].expects && len(x.asked) == 1 && !x.up.between() {
		return Unknown // RFC 9110 section 10.1.1: the user may leave the body out, or send it
	}
	x.down.body(r.body)
	return ""
}

// end stops following where there is a reason, and lets go of all that was remembered.
func (x *Exchange) end(why Reason) {
	if why != "" {
		*x = Exchange{requests: x.requests, opaque: why}
	}
}
