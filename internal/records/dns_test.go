package records

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/manycast/manycast/internal/record"
)

const (
	tsigName = "igmpd."
	secret   = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
)

// serve answers on a loopback port, over UDP and TCP, until the test ends.
func serve(t *testing.T, handle dns.HandlerFunc, secrets map[string]string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	startServer(t, &dns.Server{Listener: l, Handler: handle, TsigSecret: secrets})
	startServer(t, &dns.Server{PacketConn: p, Handler: handle, TsigSecret: secrets})
	return l.Addr().String()
}

func startServer(t *testing.T, s *dns.Server) {
	t.Helper()
	up := make(chan struct{})
	s.NotifyStartedFunc = func() { close(up) }
	go s.ActivateAndServe()
	<-up
	t.Cleanup(func() { s.Shutdown() })
}

// answer returns a handler that answers with the RRs under the name asked for, signed when the query was.
func answer(rrs []dns.RR, change func(network string, m *dns.Msg)) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, rr := range rrs {
			if rr.Header().Name == q.Question[0].Name && rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		if len(m.Answer) == 0 {
			m.Rcode = dns.RcodeNameError
		}
		if q.IsTsig() != nil && w.TsigStatus() == nil {
			m.SetTsig(tsigName, dns.HmacSHA256, 300, time.Now().Unix())
		}
		if change != nil {
			change(w.LocalAddr().Network(), m)
		}
		w.WriteMsg(m)
	}
}

func TestDNSWithTSIG(t *testing.T) {
	r := testRecord(t, 1, "")
	secrets := map[string]string{tsigName: secret}
	tests := []struct {
		name    string
		rrs     []dns.RR
		change  func(network string, m *dns.Msg)
		secrets map[string]string
		want    string // part of the error; empty: the record
	}{
		{name: "good", rrs: r.RRs(300), secrets: secrets},
		{name: "no such group", secrets: secrets, want: record.ErrNone.Error()},
		{name: "unsigned answer", rrs: r.RRs(300), secrets: secrets, want: "not signed",
			change: func(_ string, m *dns.Msg) { m.Extra = nil }},
		{name: "server has another secret", rrs: r.RRs(300), secrets: map[string]string{tsigName: "b3RoZXJvdGhlcm90aGVyb3RoZXI="}, want: "not signed"},
		{name: "refused", rrs: r.RRs(300), secrets: secrets, want: "REFUSED",
			change: func(_ string, m *dns.Msg) { m.Rcode = dns.RcodeRefused; m.Answer = nil }},
		{name: "truncated over UDP", rrs: r.RRs(300), secrets: secrets,
			change: func(network string, m *dns.Msg) {
				if network == "udp" {
					m.Truncated, m.Answer = true, nil
				}
			}},
		{name: "another group's record", rrs: renamed(t, r), secrets: secrets, want: "under a name of neither"},
		{name: "answer to another question", rrs: r.RRs(300), secrets: secrets, want: "another question",
			change: func(_ string, m *dns.Msg) { m.Question[0].Name = "x." }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := serve(t, answer(tt.rrs, tt.change), tt.secrets)
			d := NewDNS(DNSConfig{Servers: []string{server}, TSIGName: tsigName, TSIGSecret: secret})
			got, ttl, err := d.Fetch(t.Context(), group)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("error %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil || !got.Equal(r) || ttl != 300*time.Second {
				t.Fatalf("%+v, %v, %v", got, ttl, err)
			}
		})
	}
}

// renamed puts the TXT of another group under this group's name.
func renamed(t *testing.T, r record.Record) []dns.RR {
	t.Helper()
	name := record.TextName(record.ReverseName(r.Address))
	r.Address = r.Address.Next()
	var out []dns.RR
	for _, rr := range r.RRs(300) {
		if txt, ok := rr.(*dns.TXT); ok {
			txt.Hdr.Name = name
			out = append(out, txt)
		}
	}
	return out
}

func TestDNSAsksInTurn(t *testing.T) {
	r := testRecord(t, 1, "")
	secrets := map[string]string{tsigName: secret}
	refusing := serve(t, answer(nil, func(_ string, m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), secrets)
	good := serve(t, answer(r.RRs(300), nil), secrets)
	d := NewDNS(DNSConfig{Servers: []string{refusing, good}, TSIGName: tsigName, TSIGSecret: secret})
	if got, _, err := d.Fetch(t.Context(), group); err != nil || !got.Equal(r) {
		t.Fatalf("%v", err)
	}
	_, _, err := NewDNS(DNSConfig{Servers: []string{refusing}, TSIGName: tsigName, TSIGSecret: secret}).Fetch(t.Context(), group)
	if err == nil || errors.Is(err, record.ErrNone) || !strings.Contains(err.Error(), refusing) {
		t.Fatalf("error %v, want one that names the server and is no answer", err)
	}
}

func TestDNSOverTLS(t *testing.T) {
	r := testRecord(t, 1, "")
	cert, pool := certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	startServer(t, &dns.Server{Listener: l, Handler: answer(r.RRs(60), nil)})
	ask := func(name string) error {
		d := NewDNS(DNSConfig{Servers: []string{l.Addr().String()}, TLS: &tls.Config{ServerName: name, RootCAs: pool}})
		got, _, err := d.Fetch(t.Context(), group)
		if err == nil && !got.Equal(r) {
			t.Fatalf("record %+v", got)
		}
		return err
	}
	if err := ask("dns.example.net"); err != nil {
		t.Fatal(err)
	}
	if err := ask("other.example.net"); err == nil {
		t.Fatal("another server's certificate is taken")
	}
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"dns.example.net"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
