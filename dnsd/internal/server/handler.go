package server

import (
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"net"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"
)

// handler answers one message at a time; it is called from many goroutines.
type handler struct {
	zones   Zones
	tsig    keyring
	replays *replays
	udpSize int
	now     func() time.Time
	metrics *Metrics
	log     *slog.Logger
	notices *rate.Limiter // of log lines that anybody can cause
}

func newHandler(cfg Config, zones Zones, now func() time.Time, metrics *Metrics, log *slog.Logger) *handler {
	return &handler{zones: zones, tsig: newKeyring(cfg.Clients), replays: newReplays(now()), udpSize: int(cfg.UDPSize), now: now,
		metrics: metrics, log: log, notices: rate.NewLimiter(1, 10)}
}

func (h *handler) notice(msg string, args ...any) {
	if h.notices.AllowN(h.now(), 1) {
		h.log.Info(msg, args...)
	}
}

// request is a message and what is known about it.
type request struct {
	*dns.Msg
	from   net.Addr
	size   int // bytes that an answer may have
	udp    bool
	opt    *dns.OPT
	tsig   *dns.TSIG
	client *Client // who signed it; nil: unsigned
}

// ServeDNS is dns.Handler.
func (h *handler) ServeDNS(w dns.ResponseWriter, msg *dns.Msg) {
	r := &request{Msg: msg, from: w.RemoteAddr(), size: dns.MaxMsgSize}
	_, r.udp = r.from.(*net.UDPAddr)
	answer := new(dns.Msg)
	answer.SetReply(msg)
	answer.Compress = true
	var badTSIG uint16
	if code := r.parse(h.udpSize); code != dns.RcodeSuccess {
		answer.Rcode = code
		r.tsig = nil // not verified: nothing is signed for it
	} else if badTSIG = h.authenticate(r, w.TsigStatus()); badTSIG != 0 {
		answer.Rcode = dns.RcodeNotAuth
	} else if r.transfer() {
		if h.transfer(w, r) {
			return
		}
		answer.Rcode = dns.RcodeRefused
	} else {
		h.answer(r, answer)
	}
	h.finish(r, answer, badTSIG)
	h.metrics.answered(r, answer.Rcode)
	if err := w.WriteMsg(answer); err != nil {
		h.log.Debug("answer not sent", "to", r.from, "err", err)
	}
}

// parse looks at EDNS (RFC 6891) and at where the TSIG is (RFC 8945 section 5.1).
func (r *request) parse(udpSize int) (rcode int) {
	for i, rr := range r.Extra {
		switch rr := rr.(type) {
		case *dns.OPT:
			if r.opt != nil || rr.Hdr.Name != "." {
				return dns.RcodeFormatError
			}
			r.opt = rr
		case *dns.TSIG:
			if i != len(r.Extra)-1 {
				return dns.RcodeFormatError
			}
			r.tsig = rr
		}
	}
	if r.udp {
		r.size = dns.MinMsgSize
		if r.opt != nil {
			r.size = max(dns.MinMsgSize, min(int(r.opt.UDPSize()), udpSize))
		}
	}
	if r.opt != nil && r.opt.Version() != 0 {
		return dns.RcodeBadVers
	}
	return dns.RcodeSuccess
}

// authenticate finds out who signed the message; a signature that does not hold is its TSIG error.
func (h *handler) authenticate(r *request, status error) (bad uint16) {
	if r.tsig == nil {
		return 0
	}
	if status != nil {
		h.notice("signature refused", "from", r.from, "key", r.tsig.Hdr.Name, "err", status)
		if bad = tsigError(status); bad == 0 {
			bad = dns.RcodeBadSig
		}
		return bad
	}
	c := h.tsig[dns.CanonicalName(r.tsig.Hdr.Name)]
	r.client = &c
	return 0
}

func (r *request) transfer() bool {
	return r.Opcode == dns.OpcodeQuery && (r.Question[0].Qtype == dns.TypeAXFR || r.Question[0].Qtype == dns.TypeIXFR)
}

// answer fills in what there is to say.
func (h *handler) answer(r *request, m *dns.Msg) {
	if r.Opcode == dns.OpcodeUpdate {
		m.Rcode = h.update(r)
		return
	}
	q := r.Question[0]
	z := h.zones.Find(q.Name)
	if q.Qclass != dns.ClassINET || z == nil {
		m.Rcode = dns.RcodeRefused
		return
	}
	a := z.Lookup(q.Name, q.Qtype, !r.udp, h.now())
	m.Rcode, m.Authoritative = a.Rcode, a.Authoritative
	m.Answer, m.Ns = a.Answer, a.Authority
	m.Extra = append(m.Extra, a.Additional...)
	if r.opt != nil {
		h.addRecord(r, m, a.Record)
	}
}

// addRecord lets whoever asks for an address or a name have the whole record (Fig 4), if there is room for it.
func (h *handler) addRecord(r *request, m *dns.Msg, record []dns.RR) {
	before := m.Extra
	m.Extra = append(before[:len(before):len(before)], record...)
	if m.Len()+r.overhead() > r.size {
		m.Extra = before
	}
}

// update is RFC 2136 section 3.
func (h *handler) update(r *request) (rcode int) {
	q := r.Question[0]
	switch {
	case r.client == nil || !r.client.Update:
		h.notice("update refused", "from", r.from, "zone", q.Name, "signed", r.client != nil)
		rcode = dns.RcodeRefused
	case q.Qtype != dns.TypeSOA || q.Qclass != dns.ClassINET:
		rcode = dns.RcodeFormatError
	case h.zones.Zone(q.Name) == nil:
		rcode = dns.RcodeNotAuth
	default:
		rcode = h.replays.once(r.tsig, h.now(), func() int { return h.zones.Update(q.Name, r.Answer, r.Ns) })
	}
	h.metrics.updated(rcode)
	return rcode
}

// overhead is what finish will add, in bytes.
func (r *request) overhead() (n int) {
	const opt = 11
	if r.opt != nil {
		n += opt
	}
	if r.tsig != nil {
		const macAndOther = 32 + 6
		n += dns.Len(r.tsig) - len(r.tsig.MAC)/2 + macAndOther
	}
	return n
}

// finish adds OPT and TSIG and keeps the answer within its size: what is too big goes without its sections, and TC says so.
func (h *handler) finish(r *request, m *dns.Msg, badTSIG uint16) {
	if m.Len()+r.overhead() > r.size {
		m.Answer, m.Ns, m.Extra, m.Truncated = nil, nil, nil, true
	}
	if r.opt != nil {
		m.SetEdns0(uint16(h.udpSize), r.opt.Do())
	}
	if r.tsig == nil {
		return
	}
	signed := h.now().Unix()
	if badTSIG == dns.RcodeBadTime {
		signed = int64(r.tsig.TimeSigned)
	}
	m.SetTsig(r.tsig.Hdr.Name, r.tsig.Algorithm, fudgeMax, signed)
	t := m.IsTsig()
	t.OrigId, t.Error = r.Id, badTSIG
	if badTSIG == dns.RcodeBadTime { // RFC 8945 section 5.2.3
		clock := binary.BigEndian.AppendUint64(nil, uint64(h.now().Unix()))[2:]
		t.OtherLen, t.OtherData = uint16(len(clock)), hex.EncodeToString(clock)
	}
}
