package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/manycast/manycast/dnsd/internal/zone"
	"github.com/manycast/manycast/internal/record"
)

var (
	writer = Client{Name: "cli.", Secret: base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32)), Update: true}
	reader = Client{Name: "igmpd.", Secret: base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{2}, 32))}
)

// bench is a running server.
type bench struct {
	dir     string
	store   *zone.Store
	address string // UDP and TCP
}

func newStore(t testing.TB, dir string) *zone.Store {
	t.Helper()
	spec := func(name string) zone.Spec {
		return zone.Spec{Name: name, NS: []string{"ns1.cast.example."}, Mbox: "hostmaster.cast.example."}
	}
	store, err := zone.Open(dir, []zone.Spec{spec("cast.example."), spec("239.in-addr.arpa.")}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func start(t testing.TB, dir string) *bench {
	t.Helper()
	b := &bench{dir: dir, store: newStore(t, dir)}
	cfg := Config{Listen: []string{"127.0.0.1:0"}, UDPSize: 1232, Clients: []Client{writer, reader}}
	s, err := Listen(cfg, b.store, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b.address = s.Addrs()[0].String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	<-s.Ready()
	return b
}

func testRecord() record.Record {
	public := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)).Public().(ed25519.PublicKey)
	return record.Record{Name: "web.cast.example.", Address: netip.MustParseAddr("239.192.1.2"), Owner: "ops@example.com", Private: true,
		Keys: []record.Key{record.NewKey(public)}}
}

// publish puts the record into both zones.
func (b *bench) publish(t testing.TB, r record.Record) {
	t.Helper()
	for origin, rrs := range map[string][]dns.RR{"cast.example.": r.Forward(60), "239.in-addr.arpa.": r.Reverse(60)} {
		m := new(dns.Msg).SetUpdate(origin)
		m.Insert(rrs)
		if answer := b.exchange(t, "tcp", m, &writer); answer.Rcode != dns.RcodeSuccess {
			t.Fatalf("%s: %s", origin, dns.RcodeToString[answer.Rcode])
		}
	}
}

// exchange signs with the client's key, if there is one, and checks the answer's signature.
func (b *bench) exchange(t testing.TB, network string, m *dns.Msg, as *Client) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, UDPSize: 4096}
	if as != nil {
		c.TsigSecret = map[string]string{as.Name: as.Secret}
		m.SetTsig(as.Name, dns.HmacSHA256, 300, time.Now().Unix())
	}
	answer, _, err := c.Exchange(m, b.address)
	if err != nil && answer == nil {
		t.Fatal(err)
	}
	if as != nil && answer.IsTsig() == nil {
		t.Errorf("signed question, unsigned answer")
	}
	return answer
}

func question(name string, qtype uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }

func TestOneTXTQuerySaysItAll(t *testing.T) {
	b := start(t, t.TempDir())
	r := testRecord()
	b.publish(t, r)
	for _, name := range []string{r.Name, record.TextName(r.Name), record.ReverseName(r.Address), record.TextName(record.ReverseName(r.Address))} {
		for _, as := range []*Client{nil, &reader} {
			answer := b.exchange(t, "udp", question(name, dns.TypeTXT).SetEdns0(1232, false), as)
			got, err := record.ParseRRs(answer.Answer)
			if err != nil || !got.Equal(r) || !answer.Authoritative {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
	}
}

func TestOtherTypesBringTheRecordAlong(t *testing.T) {
	b := start(t, t.TempDir())
	r := testRecord()
	b.publish(t, r)
	for name, qtype := range map[string]uint16{r.Name: dns.TypeA, record.ReverseName(r.Address): dns.TypePTR} {
		answer := b.exchange(t, "udp", question(name, qtype).SetEdns0(1232, false), nil)
		if got, err := record.ParseRRs(append(answer.Answer, answer.Extra...)); err != nil || !got.Equal(r) {
			t.Errorf("%s: %v", name, err)
		}
		plain := b.exchange(t, "udp", question(name, qtype), nil)
		if len(plain.Answer) != 1 || len(plain.Extra) != 0 || plain.Truncated {
			t.Errorf("%s without EDNS: %v", name, plain)
		}
	}
}

func TestNegativeAnswers(t *testing.T) {
	b := start(t, t.TempDir())
	b.publish(t, testRecord())
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode int
		soa   bool
	}{
		{"none.cast.example.", dns.TypeA, dns.RcodeNameError, true},
		{"web.cast.example.", dns.TypeMX, dns.RcodeSuccess, true},
		{"192.239.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, true},
		{"example.org.", dns.TypeA, dns.RcodeRefused, false},
	} {
		answer := b.exchange(t, "udp", question(c.name, c.qtype), nil)
		if answer.Rcode != c.rcode || len(answer.Answer) != 0 || (len(answer.Ns) == 1) != c.soa {
			t.Errorf("%s: %v", c.name, answer)
		}
	}
	chaos := question("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	if answer := b.exchange(t, "udp", chaos, nil); answer.Rcode != dns.RcodeRefused {
		t.Errorf("CHAOS: %v", answer)
	}
}

func TestEDNS(t *testing.T) {
	b := start(t, t.TempDir())
	m := question("cast.example.", dns.TypeSOA).SetEdns0(4096, true)
	opt := b.exchange(t, "udp", m, nil).IsEdns0()
	if opt == nil || opt.UDPSize() != 1232 || !opt.Do() || opt.Version() != 0 {
		t.Errorf("%v", opt)
	}
	m.IsEdns0().SetVersion(1)
	if answer := b.exchange(t, "udp", m, nil); answer.Rcode != dns.RcodeBadVers || len(answer.Answer) != 0 {
		t.Errorf("version 1: %v", answer)
	}
	twice := question("cast.example.", dns.TypeSOA).SetEdns0(4096, false).SetEdns0(4096, false)
	if answer := b.exchange(t, "udp", twice, nil); answer.Rcode != dns.RcodeFormatError {
		t.Errorf("two OPT: %v", answer)
	}
}

func TestTruncationAndTCP(t *testing.T) {
	b := start(t, t.TempDir())
	m := new(dns.Msg).SetUpdate("cast.example.")
	for i := range 30 {
		m.Insert([]dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "big.cast.example.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1},
			Txt: []string{strings.Repeat(string(rune('a'+i%26)), 60+i)}}})
	}
	b.exchange(t, "tcp", m, &writer)
	for size, as := range map[uint16]*Client{0: nil, 512: nil, 1232: nil, 4096: nil, 1000: &reader} {
		q := question("big.cast.example.", dns.TypeTXT)
		if size > 0 {
			q.SetEdns0(size, false)
		}
		answer := b.exchange(t, "udp", q, as)
		if !answer.Truncated || len(answer.Answer) != 0 {
			t.Errorf("size %d: TC %v, %d RRs", size, answer.Truncated, len(answer.Answer))
		}
	}
	if answer := b.exchange(t, "tcp", question("big.cast.example.", dns.TypeTXT), nil); answer.Truncated || len(answer.Answer) != 30 {
		t.Errorf("TCP: TC %v, %d RRs", answer.Truncated, len(answer.Answer))
	}
}

func TestANYIsSmallOnUDP(t *testing.T) {
	b := start(t, t.TempDir())
	b.publish(t, testRecord())
	if answer := b.exchange(t, "udp", question("web.cast.example.", dns.TypeANY).SetEdns0(4096, false), nil); len(answer.Answer) != 1 {
		t.Errorf("%v", answer)
	}
	if answer := b.exchange(t, "tcp", question("web.cast.example.", dns.TypeANY), nil); len(answer.Answer) != 4 {
		t.Errorf("%v", answer)
	}
}

func TestTransfer(t *testing.T) {
	b := start(t, t.TempDir())
	b.publish(t, testRecord())
	many := new(dns.Msg).SetUpdate("cast.example.")
	for i := range 400 {
		many.Insert([]dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "big.cast.example.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1},
			Txt: []string{strings.Repeat("x", 100), string(rune('A' + i))}}})
	}
	b.exchange(t, "tcp", many, &writer)
	m := new(dns.Msg).SetAxfr("cast.example.")
	m.SetTsig(reader.Name, dns.HmacSHA256, 300, time.Now().Unix())
	in, err := (&dns.Transfer{TsigSecret: map[string]string{reader.Name: reader.Secret}}).In(m, b.address)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for e := range in {
		if e.Error != nil {
			t.Fatal(e.Error)
		}
		n += len(e.RR)
	}
	if want := len(b.store.Zone("cast.example.").RRs()) + 1; n != want {
		t.Errorf("%d RRs, want %d", n, want)
	}
	if answer := b.exchange(t, "tcp", new(dns.Msg).SetAxfr("cast.example."), nil); answer.Rcode != dns.RcodeRefused {
		t.Errorf("unsigned: %v", answer)
	}
	if answer := b.exchange(t, "udp", new(dns.Msg).SetAxfr("cast.example."), &reader); answer.Rcode != dns.RcodeRefused {
		t.Errorf("UDP: %v", answer)
	}
}

func TestRestartKeepsUpdates(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir)
	b.publish(t, testRecord())
	serial := b.store.Zone("cast.example.").SOA().Serial
	again := start(t, dir)
	answer := again.exchange(t, "udp", question("web.cast.example.", dns.TypeTXT).SetEdns0(1232, false), nil)
	if got, err := record.ParseRRs(answer.Answer); err != nil || !got.Equal(testRecord()) {
		t.Errorf("%v", err)
	}
	if got := again.store.Zone("cast.example.").SOA().Serial; got != serial {
		t.Errorf("serial %d, was %d", got, serial)
	}
}

func TestSecondServerOnThePort(t *testing.T) {
	b := start(t, t.TempDir())
	_, err := Listen(Config{Listen: []string{b.address}, UDPSize: 512}, b.store, time.Now, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), b.address) {
		t.Errorf("%v", err)
	}
}

func TestDig(t *testing.T) {
	b := start(t, t.TempDir())
	r := testRecord()
	b.publish(t, r)
	at := netip.MustParseAddrPort(b.address)
	dig := func(args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		args = append([]string{"@" + at.Addr().String(), "-p", strings.Split(b.address, ":")[1], "+tries=1", "+norecurse"}, args...)
		out, err := exec.CommandContext(ctx, "dig", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("dig %v (package bind9-dnsutils): %v\n%s", args, err, out)
		}
		return string(out)
	}
	tsig := "hmac-sha256:" + reader.Name + ":" + reader.Secret
	for _, args := range [][]string{
		{r.Name}, {"-x", r.Address.String()}, {r.Name, "TXT"}, {"-x", r.Address.String(), "-t", "TXT"}, {"_manycast." + r.Name, "TXT"},
		{r.Name, "ANY"}, {"-y", tsig, r.Name, "TXT"}, {"+noedns", "+tcp", "-x", r.Address.String(), "-t", "TXT"},
	} {
		out := dig(args...)
		for _, want := range []string{"status: NOERROR", r.Name, r.Address.String(), "owner=" + r.Owner, "flag=private", "key=" + r.Keys[0].String()} {
			if !strings.Contains(out, want) {
				t.Errorf("dig %v: no %q in\n%s", args, want, out)
			}
		}
		if strings.Contains(out, "WARN") || strings.Contains(out, "Couldn't verify") {
			t.Errorf("dig %v complains:\n%s", args, out)
		}
	}
}

func TestReadersDuringUpdates(t *testing.T) {
	b := start(t, t.TempDir())
	b.publish(t, testRecord())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 25 {
				m := new(dns.Msg).SetUpdate("cast.example.")
				name := string(rune('a'+i)) + string(rune('a'+j)) + ".cast.example."
				m.Insert([]dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: []byte{192, 0, 2, 1}}})
				b.exchange(t, "tcp", m, &writer)
			}
		})
		wg.Go(func() {
			for range 50 {
				answer := b.exchange(t, "tcp", question("web.cast.example.", dns.TypeTXT), nil)
				if _, err := record.ParseRRs(answer.Answer); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := len(b.store.Zone("cast.example.").RRs()); got != 2+5+100 {
		t.Errorf("%d RRs", got)
	}
}
