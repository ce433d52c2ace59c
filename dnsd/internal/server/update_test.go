package server

import (
	"bytes"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestUpdateNeedsAWritersSignature(t *testing.T) {
	b := start(t, t.TempDir())
	before := b.store.Zone("cast.example.")
	make := func(origin string) *dns.Msg {
		m := new(dns.Msg).SetUpdate(origin)
		m.Insert(testRecord().Forward(1)[:1])
		return m
	}
	wrong, unknown, sha512 := writer, writer, make("cast.example.")
	wrong.Secret = reader.Secret
	unknown.Name = "nobody."
	sha512.SetTsig(writer.Name, dns.HmacSHA512, 300, time.Now().Unix())
	late, wide := make("cast.example."), make("cast.example.")
	late.SetTsig(writer.Name, dns.HmacSHA256, 300, time.Now().Add(-time.Hour).Unix())
	wide.SetTsig(writer.Name, dns.HmacSHA256, 65535, time.Now().Add(-time.Hour).Unix())
	raw := func(m *dns.Msg) *dns.Msg { return b.raw(t, m, writer) }
	for name, c := range map[string]struct {
		answer *dns.Msg
		rcode  int
		tsig   uint16
	}{
		"unsigned":    {b.exchange(t, "udp", make("cast.example."), nil), dns.RcodeRefused, 0},
		"reader":      {b.exchange(t, "udp", make("cast.example."), &reader), dns.RcodeRefused, 0},
		"wrong key":   {b.exchange(t, "udp", make("cast.example."), &wrong), dns.RcodeNotAuth, dns.RcodeBadSig},
		"unknown key": {b.exchange(t, "udp", make("cast.example."), &unknown), dns.RcodeNotAuth, dns.RcodeBadKey},
		"other zone":  {b.exchange(t, "udp", make("example.org."), &writer), dns.RcodeNotAuth, 0},
		"sub zone":    {b.exchange(t, "udp", make("web.cast.example."), &writer), dns.RcodeNotAuth, 0},
		"algorithm":   {raw(sha512), dns.RcodeNotAuth, dns.RcodeBadKey},
		"late":        {raw(late), dns.RcodeNotAuth, dns.RcodeBadTime},
		"late, wide":  {raw(wide), dns.RcodeNotAuth, dns.RcodeBadTime},
	} {
		var code uint16
		if ts := c.answer.IsTsig(); ts != nil {
			code = ts.Error
		}
		if c.answer.Rcode != c.rcode || code != c.tsig {
			t.Errorf("%s: %s, TSIG %d", name, dns.RcodeToString[c.answer.Rcode], code)
		}
	}
	if b.store.Zone("cast.example.") != before {
		t.Error("something was updated")
	}
}

// raw sends a message that has its TSIG already, whatever that says, and does not check the answer's.
func (b *bench) raw(t testing.TB, m *dns.Msg, as Client) *dns.Msg {
	t.Helper()
	wire, _, err := dns.TsigGenerate(m, as.Secret, "", false)
	if err != nil {
		t.Fatal(err)
	}
	return b.sendWire(t, wire)
}

func (b *bench) sendWire(t testing.TB, wire []byte) *dns.Msg {
	t.Helper()
	conn, err := dns.DialTimeout("tcp", b.address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(wire); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := conn.ReadMsg()
	if answer == nil {
		t.Fatal(err)
	}
	return answer
}

func TestReplayedUpdateIsDoneOnce(t *testing.T) {
	b := start(t, t.TempDir())
	r := testRecord()
	add := new(dns.Msg).SetUpdate("cast.example.")
	add.Insert(r.Forward(1)[:1])
	add.SetTsig(writer.Name, dns.HmacSHA256, 300, time.Now().Unix())
	wire, _, err := dns.TsigGenerate(add, writer.Secret, "", false)
	if err != nil {
		t.Fatal(err)
	}
	b.sendWire(t, bytes.Clone(wire))
	remove := new(dns.Msg).SetUpdate("cast.example.")
	remove.RemoveName(r.Forward(1)[:1])
	b.exchange(t, "tcp", remove, &writer)
	if answer := b.sendWire(t, bytes.Clone(wire)); answer.Rcode != dns.RcodeSuccess {
		t.Errorf("a retransmission is answered as before, got %s", dns.RcodeToString[answer.Rcode])
	}
	if answer := b.exchange(t, "udp", question(r.Name, dns.TypeA), nil); answer.Rcode != dns.RcodeNameError {
		t.Error("a replayed update was done again")
	}
	old := new(dns.Msg).SetUpdate("cast.example.")
	old.Insert(r.Forward(1)[:1])
	old.SetTsig(writer.Name, dns.HmacSHA256, 300, time.Now().Add(-time.Minute).Unix())
	if answer := b.raw(t, old, writer); answer.Rcode != dns.RcodeRefused {
		t.Errorf("signed before the start: %s", dns.RcodeToString[answer.Rcode])
	}
}
