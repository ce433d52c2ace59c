package server

import (
	"github.com/miekg/dns"
)

// envelopeSize is about what one message of a transfer holds, in bytes before compression.
const envelopeSize = 16 << 10

// transfer sends a whole zone (RFC 5936) to a client who signed its request, over TCP. An IXFR gets the whole zone too, as
// RFC 1995 lets it. It says whether it answered.
func (h *handler) transfer(w dns.ResponseWriter, r *request) bool {
	z := h.zones.Zone(r.Question[0].Name)
	if r.client == nil || r.udp || z == nil || r.Question[0].Qclass != dns.ClassINET {
		return false
	}
	rrs := append(z.RRs(), z.SOA())
	envelopes := make(chan *dns.Envelope)
	done := make(chan error, 1)
	go func() { done <- new(dns.Transfer).Out(w, r.Msg, envelopes) }()
	var err error
	for len(rrs) > 0 && err == nil {
		n, size := 0, 0
		for n < len(rrs) && size < envelopeSize {
			size += dns.Len(rrs[n])
			n++
		}
		select {
		case envelopes <- &dns.Envelope{RR: rrs[:n]}:
		case err = <-done:
		}
		rrs = rrs[n:]
	}
	close(envelopes)
	if err == nil {
		err = <-done
	}
	if err != nil {
		h.log.Info("zone transfer broke off", "zone", z.Origin(), "to", r.from, "err", err)
		_ = w.Close() // the client sees a broken transfer either way
	}
	h.metrics.answered(r, dns.RcodeSuccess)
	return true
}
