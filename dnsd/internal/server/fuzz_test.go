package server

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// FuzzMessage gives the handler what the network might: it has to come back, with an answer that packs and is no larger than asked.
func FuzzMessage(f *testing.F) {
	store := newStore(f, f.TempDir())
	h := newHandler(Config{UDPSize: 1232, Clients: []Client{writer}}, store, time.Now, newMetrics(), slog.New(slog.DiscardHandler))
	for _, m := range []*dns.Msg{
		question("web.cast.example.", dns.TypeTXT).SetEdns0(1232, false), question("cast.example.", dns.TypeANY), new(dns.Msg).SetAxfr("cast.example."),
		new(dns.Msg).SetUpdate("cast.example."), question("cast.example.", dns.TypeSOA).SetTsig(writer.Name, dns.HmacSHA256, 300, 1),
	} {
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, true, uint8(0))
		f.Add(wire, false, uint8(1))
	}
	statuses := []error{nil, dns.ErrSig, dns.ErrTime, dns.ErrSecret, errors.New("other")}
	f.Fuzz(func(t *testing.T, wire []byte, udp bool, status uint8) {
		var m dns.Msg
		if len(wire) < 12 || m.Unpack(wire) != nil {
			return
		}
		header := dns.Header{Bits: uint16(wire[2])<<8 | uint16(wire[3]), Qdcount: uint16(len(m.Question)),
			Ancount: uint16(len(m.Answer)), Nscount: uint16(len(m.Ns)), Arcount: uint16(len(m.Extra))}
		if accept(header) != dns.MsgAccept {
			return
		}
		w := &fakeWriter{t: t, udp: udp, status: statuses[int(status)%len(statuses)]}
		h.ServeDNS(w, &m)
		if w.n != 1 && !w.closed && !isTransfer(&m) {
			t.Errorf("%d answers", w.n)
		}
	})
}

func isTransfer(m *dns.Msg) bool { return (&request{Msg: m}).transfer() }
