package zone

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/manycast/manycast/internal/record"
)

const master = `
$ORIGIN cast.example.
@ 300 SOA ns1 hostmaster 10 3600 600 604800 60
@ 300 NS ns1
@ 300 MX 10 mail
ns1 300 A 192.0.2.1
web 300 A 192.0.2.80
web 300 TXT "v=spf1 -all"
www 300 CNAME web
out 300 CNAME elsewhere.example.
loop 300 CNAME loop
a.b.c 300 A 192.0.2.2
*.wild 300 A 192.0.2.3
sub 300 NS ns.sub
ns.sub 300 A 192.0.2.4
`

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func testZone(t testing.TB) *Zone {
	t.Helper()
	path := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(path, []byte(master), 0o600); err != nil {
		t.Fatal(err)
	}
	z, err := ReadFile(path, "cast.example.")
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func texts(rrs []dns.RR) (out []string) {
	for _, rr := range rrs {
		out = append(out, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	return out
}

func TestLookup(t *testing.T) {
	z := testZone(t)
	soa := []string{"cast.example. 60 IN SOA ns1.cast.example. hostmaster.cast.example. 10 3600 600 604800 60"}
	for _, c := range []struct {
		name              string
		qtype             uint16
		code              int
		answer, authority []string
	}{
		{"web.cast.example.", dns.TypeA, 0, []string{"web.cast.example. 300 IN A 192.0.2.80"}, nil},
		{"WEB.cast.Example.", dns.TypeA, 0, []string{"web.cast.example. 300 IN A 192.0.2.80"}, nil},
		{"web.cast.example.", dns.TypeAAAA, 0, nil, soa},
		{"none.cast.example.", dns.TypeA, dns.RcodeNameError, nil, soa},
		{"b.c.cast.example.", dns.TypeA, 0, nil, soa}, // has names below it
		{"www.cast.example.", dns.TypeA, 0, []string{"www.cast.example. 300 IN CNAME web.cast.example.", "web.cast.example. 300 IN A 192.0.2.80"}, nil},
		{"www.cast.example.", dns.TypeCNAME, 0, []string{"www.cast.example. 300 IN CNAME web.cast.example."}, nil},
		{"out.cast.example.", dns.TypeA, 0, []string{"out.cast.example. 300 IN CNAME elsewhere.example."}, nil},
		{"x.y.wild.cast.example.", dns.TypeA, 0, []string{"x.y.wild.cast.example. 300 IN A 192.0.2.3"}, nil},
		{"x.wild.cast.example.", dns.TypeTXT, 0, nil, soa},
		{"www.sub.cast.example.", dns.TypeA, 0, nil, []string{"sub.cast.example. 300 IN NS ns.sub.cast.example."}},
		{"web.cast.example.", dns.TypeANY, 0, []string{"web.cast.example. 300 IN A 192.0.2.80"}, nil},
	} {
		a := z.Lookup(c.name, c.qtype, false, now)
		if a.Rcode != c.code {
			t.Errorf("%s %s: %s", c.name, dns.Type(c.qtype), dns.RcodeToString[a.Rcode])
		}
		if diff := cmp.Diff(c.answer, texts(a.Answer)); diff != "" {
			t.Errorf("%s %s answer: %s", c.name, dns.Type(c.qtype), diff)
		}
		if diff := cmp.Diff(c.authority, texts(a.Authority)); diff != "" {
			t.Errorf("%s %s authority: %s", c.name, dns.Type(c.qtype), diff)
		}
	}
	if a := z.Lookup("www.sub.cast.example.", dns.TypeA, false, now); a.Authoritative || len(a.Additional) != 1 {
		t.Errorf("referral: %+v", a)
	}
	if a := z.Lookup("loop.cast.example.", dns.TypeA, false, now); len(a.Answer) > cnameMax {
		t.Errorf("loop: %d RRs", len(a.Answer))
	}
	if a := z.Lookup("web.cast.example.", dns.TypeANY, true, now); len(a.Answer) != 2 {
		t.Errorf("whole ANY: %v", texts(a.Answer))
	}
}

func TestNewRefuses(t *testing.T) {
	soa, ns := "cast.example. 1 SOA a. b. 1 1 1 1 1", "cast.example. 1 NS a."
	for name, lines := range map[string][]string{
		"no SOA":      {ns},
		"no NS":       {soa},
		"two SOA":     {soa, strings.Replace(soa, " 1 1 1 1 1", " 2 1 1 1 1", 1), ns},
		"SOA below":   {soa, ns, "x." + soa},
		"out of zone": {soa, ns, "example. 1 A 192.0.2.1"},
		"CNAME":       {soa, ns, "x.cast.example. 1 A 192.0.2.1", "x.cast.example. 1 CNAME a."},
		"class":       {soa, ns, "x.cast.example. 1 CH TXT x"},
	} {
		var rrs []dns.RR
		for _, line := range lines {
			rrs = append(rrs, rr(t, line))
		}
		if _, err := New("cast.example.", rrs); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func rr(t testing.TB, text string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

// onWire gives RRs the RDLENGTH that they would have in a message.
func onWire(t testing.TB, m *dns.Msg) (prerequisites, updates []dns.RR) {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var back dns.Msg
	if err := back.Unpack(wire); err != nil {
		t.Fatal(err)
	}
	return back.Answer, back.Ns
}

func TestUpdate(t *testing.T) {
	add := func(text string) func(*dns.Msg) { return func(m *dns.Msg) { m.Insert([]dns.RR{rr(t, text)}) } }
	for _, c := range []struct {
		name string
		make []func(*dns.Msg)
		code int
		want map[string]int // RRs of a name afterwards
	}{
		{"add", []func(*dns.Msg){add("x.cast.example. 5 A 192.0.2.9"), add("x.cast.example. 5 A 192.0.2.10")}, 0, map[string]int{"x": 2}},
		{"add what is there", []func(*dns.Msg){add("WEB.cast.example. 300 A 192.0.2.80")}, 0, map[string]int{"web": 2}},
		{"CNAME beside data is ignored", []func(*dns.Msg){add("web.cast.example. 5 CNAME a."), add("www.cast.example. 5 A 192.0.2.1")}, 0,
			map[string]int{"web": 2, "www": 1}},
		{"delete name", []func(*dns.Msg){func(m *dns.Msg) { m.RemoveName([]dns.RR{rr(t, "web.cast.example. A 192.0.2.1")}) }}, 0, map[string]int{"web": 0}},
		{"delete set", []func(*dns.Msg){func(m *dns.Msg) { m.RemoveRRset([]dns.RR{rr(t, "web.cast.example. A 192.0.2.1")}) }}, 0, map[string]int{"web": 1}},
		{"delete RR", []func(*dns.Msg){func(m *dns.Msg) { m.Remove([]dns.RR{rr(t, "web.cast.example. 9 A 192.0.2.80")}) }}, 0, map[string]int{"web": 1}},
		{"delete other RR", []func(*dns.Msg){func(m *dns.Msg) { m.Remove([]dns.RR{rr(t, "web.cast.example. A 192.0.2.81")}) }}, 0, map[string]int{"web": 2}},
		{"apex keeps SOA and NS", []func(*dns.Msg){func(m *dns.Msg) {
			m.RemoveName([]dns.RR{rr(t, "cast.example. A 192.0.2.1")})
			m.Remove([]dns.RR{rr(t, "cast.example. NS ns1.cast.example.")})
		}}, 0, map[string]int{"": 2}},
		{"name used, is", []func(*dns.Msg){func(m *dns.Msg) { m.NameUsed([]dns.RR{rr(t, "web.cast.example. A 192.0.2.1")}) }}, 0, nil},
		{"name used, is not", []func(*dns.Msg){func(m *dns.Msg) { m.NameUsed([]dns.RR{rr(t, "x.cast.example. A 192.0.2.1")}) }}, dns.RcodeNameError, nil},
		{"name not used, is", []func(*dns.Msg){func(m *dns.Msg) { m.NameNotUsed([]dns.RR{rr(t, "web.cast.example. A 192.0.2.1")}) }, add("x.cast.example. 5 A 192.0.2.9")},
			dns.RcodeYXDomain, map[string]int{"x": 0}},
		{"set used, is not", []func(*dns.Msg){func(m *dns.Msg) { m.RRsetUsed([]dns.RR{rr(t, "web.cast.example. AAAA ::1")}) }}, dns.RcodeNXRrset, nil},
		{"set not used, is", []func(*dns.Msg){func(m *dns.Msg) { m.RRsetNotUsed([]dns.RR{rr(t, "web.cast.example. A 192.0.2.1")}) }}, dns.RcodeYXRrset, nil},
		{"same set", []func(*dns.Msg){func(m *dns.Msg) { m.Used([]dns.RR{rr(t, "web.cast.example. 0 A 192.0.2.80")}) }}, 0, nil},
		{"other set", []func(*dns.Msg){func(m *dns.Msg) { m.Used([]dns.RR{rr(t, "web.cast.example. 0 A 192.0.2.81")}) }}, dns.RcodeNXRrset, nil},
		{"out of zone", []func(*dns.Msg){add("x.cast.example. 5 A 192.0.2.9"), add("example.org. 5 A 192.0.2.9")}, dns.RcodeNotZone, map[string]int{"x": 0}},
		{"older SOA is ignored", []func(*dns.Msg){add("cast.example. 5 SOA a. b. 9 1 1 1 1")}, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			z := testZone(t)
			before := texts(z.RRs())
			m := new(dns.Msg).SetUpdate("cast.example.")
			for _, f := range c.make {
				f(m)
			}
			next, code := z.Update(onWire(t, m))
			if code != c.code {
				t.Errorf("code %s", dns.RcodeToString[code])
			}
			for name, want := range c.want {
				got := 0
				for _, set := range next.nodes[strings.TrimPrefix(name+".cast.example.", ".")] {
					got += len(set)
				}
				if name == "" {
					name = "apex"
				}
				if got != want {
					t.Errorf("%s has %d RRs, want %d", name, got, want)
				}
			}
			if diff := cmp.Diff(before, texts(z.RRs())); diff != "" {
				t.Errorf("the old zone changed: %s", diff)
			}
			if changed := next != z; changed != (next.SOA().Serial == 11) {
				t.Errorf("changed %v, serial %d", changed, next.SOA().Serial)
			}
		})
	}
}

func TestUpdateTakesNewerSOA(t *testing.T) {
	m := new(dns.Msg).SetUpdate("cast.example.")
	m.Insert([]dns.RR{rr(t, "cast.example. 5 SOA a. b. 4000 1 1 1 1")})
	next, _ := testZone(t).Update(onWire(t, m))
	if next.SOA().Serial != 4000 {
		t.Errorf("serial %d, want the one given", next.SOA().Serial)
	}
}

func tempRecord(t testing.TB, until time.Time) record.Record {
	public := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)).Public().(ed25519.PublicKey)
	r := record.Record{Name: "web.cast.example.", Address: netip.MustParseAddr("239.192.1.2"), Owner: "ops@example.com", Private: true,
		Keys: []record.Key{record.NewKey(public)}, Until: until}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	return r
}

func insert(t testing.TB, z *Zone, rrs []dns.RR) *Zone {
	t.Helper()
	m := new(dns.Msg).SetUpdate(z.Origin())
	m.Insert(rrs)
	next, code := z.Update(onWire(t, m))
	if code != dns.RcodeSuccess {
		t.Fatal(dns.RcodeToString[code])
	}
	return next
}

func TestExpire(t *testing.T) {
	plain := testZone(t)
	until := now.Add(100 * time.Second)
	z := insert(t, plain, tempRecord(t, until).Forward(300))
	if got := z.Expiry(); !got.Equal(until) {
		t.Errorf("expiry %s", got)
	}
	a := z.Lookup("web.cast.example.", dns.TypeRP, false, now)
	if len(a.Answer) != 1 || a.Answer[0].Header().Ttl != 100 || len(a.Record) != 1 {
		t.Errorf("TTL is not cut to what is left: %v", texts(a.Answer))
	}
	if z.Expire(until.Add(-time.Second)) != z {
		t.Error("expired too early")
	}
	gone := z.Expire(until)
	if diff := cmp.Diff(texts(plain.RRs())[1:], texts(gone.RRs())[1:]); diff != "" {
		t.Errorf("want what was there before: %s", diff)
	}
	if !gone.Expiry().IsZero() || gone.SOA().Serial != z.SOA().Serial+1 {
		t.Errorf("expiry %s, serial %d", gone.Expiry(), gone.SOA().Serial)
	}
}

func TestStorePersists(t *testing.T) {
	dir := t.TempDir()
	specs := []Spec{{Name: "cast.example.", NS: []string{"ns1.cast.example."}, Mbox: "hostmaster.cast.example."}}
	open := func() *Store {
		s, err := Open(dir, specs, func() time.Time { return now }, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	m := new(dns.Msg).SetUpdate("cast.example.")
	m.Insert(tempRecord(t, now.Add(time.Hour)).Forward(300))
	m.Insert([]dns.RR{rr(t, "web.cast.example. 5 IN IPSECKEY 20 0 4 . 6a3803d5f059902a1c6dafbc9ba4a729212f7caa08634cc3ae76f3a0")})
	m.Insert([]dns.RR{rr(t, `zodd.cast.example. 5 TXT "a\"b\\c;d \001\255"`), rr(t, `sp\032ace.cast.example. 5 A 192.0.2.1`)})
	pre, ups := onWire(t, m)
	if code := s.Update("cast.example.", pre, ups); code != dns.RcodeSuccess {
		t.Fatal(dns.RcodeToString[code])
	}
	want := s.Zone("cast.example.")
	again := open().Zone("cast.example.")
	if diff := cmp.Diff(texts(want.RRs()), texts(again.RRs())); diff != "" {
		t.Error(diff)
	}
	if !again.Expiry().Equal(want.Expiry()) {
		t.Error("expiry lost")
	}
	if code := s.Update("example.org.", pre, ups); code != dns.RcodeNotAuth {
		t.Errorf("other zone: %s", dns.RcodeToString[code])
	}
}

// A VIP's record has destinations, in an APL beside the text; an update that changes them leaves nothing of the old ones.
func TestDestinationsArePublishedAndChanged(t *testing.T) {
	dir := t.TempDir()
	specs := []Spec{{Name: "cast.example.", NS: []string{"ns1.cast.example."}, Mbox: "hostmaster.cast.example."}}
	s, err := Open(dir, specs, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	old := tempRecord(t, time.Time{})
	old.Name, old.Address, old.Private = "shop.cast.example.", netip.MustParseAddr("192.0.2.80"), false
	old.Destinations = []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("10.3.0.4/32")}
	next := old
	next.Destinations = []netip.Prefix{netip.MustParsePrefix("10.3.0.4/32"), netip.MustParsePrefix("10.4.0.0/24")}
	change := func(prev, next *record.Record) {
		t.Helper()
		m := new(dns.Msg).SetUpdate("cast.example.")
		if prev != nil {
			m.Remove(prev.Forward(0))
		}
		m.Insert(next.Forward(300))
		pre, ups := onWire(t, m)
		if code := s.Update("cast.example.", pre, ups); code != dns.RcodeSuccess {
			t.Fatal(dns.RcodeToString[code])
		}
	}
	change(nil, &old)
	change(&old, &next)
	again, err := Open(dir, specs, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for what, z := range map[string]*Zone{"in memory": s.Zone("cast.example."), "from the file": again.Zone("cast.example.")} {
		a := z.Lookup("shop.cast.example.", dns.TypeAPL, false, now)
		want := []string{"shop.cast.example. 300 IN APL 1:10.3.0.4/32 1:10.4.0.0/24"}
		if diff := cmp.Diff(want, texts(a.Answer)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		if r, err := record.ParseRRs(append(a.Answer, a.Record...)); err != nil || !r.Equal(next) {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
}

func TestFullDiskKeepsTheOldZone(t *testing.T) {
	dir := t.TempDir()
	specs := []Spec{{Name: "cast.example.", NS: []string{"ns1.cast.example."}, Mbox: "h.cast.example."}}
	s, err := Open(dir, specs, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	before := s.Zone("cast.example.")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg).SetUpdate("cast.example.")
	m.Insert([]dns.RR{rr(t, "x.cast.example. 5 A 192.0.2.1")})
	pre, ups := onWire(t, m)
	if code := s.Update("cast.example.", pre, ups); code != dns.RcodeServerFailure {
		t.Error(dns.RcodeToString[code])
	}
	if s.Zone("cast.example.") != before {
		t.Error("an update that is not on disk is visible")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if code := s.Update("cast.example.", pre, ups); code != dns.RcodeSuccess {
		t.Error(dns.RcodeToString[code])
	}
}

func TestCorruptZoneFileIsAnError(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cast.example.zone")
	if err := os.WriteFile(path, []byte(master[:len(master)/2]+" \x00garbage ("), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, []Spec{{Name: "cast.example.", NS: []string{"a."}, Mbox: "b."}}, time.Now, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}

func TestRunExpires(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		specs := []Spec{{Name: "cast.example.", NS: []string{"ns1.cast.example."}, Mbox: "h.cast.example."}}
		s, err := Open(dir, specs, time.Now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		s.save = func(string, []byte) error { return os.ErrPermission } // the disk is full later on
		go s.Run(t.Context())
		z := insert(t, s.Zone("cast.example."), tempRecord(t, time.Now().Add(2*time.Hour).Truncate(time.Second)).Forward(300))
		s.mu.Lock()
		s.publish(z)
		s.mu.Unlock()
		has := func() bool { return s.Zone("cast.example.").nodes["web.cast.example."] != nil }
		time.Sleep(2*time.Hour - 2*time.Second)
		if synctest.Wait(); !has() {
			t.Error("gone too early")
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); has() {
			t.Error("still there")
		}
	})
}

func FuzzUpdate(f *testing.F) {
	m := new(dns.Msg).SetUpdate("cast.example.")
	m.Insert(tempRecord(f, now).Forward(1))
	m.RemoveName([]dns.RR{rr(f, "web.cast.example. A 192.0.2.1")})
	m.NameUsed([]dns.RR{rr(f, "www.cast.example. A 192.0.2.1")})
	wire, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	z := testZone(f)
	path := filepath.Join(f.TempDir(), "zone")
	f.Fuzz(func(t *testing.T, wire []byte) {
		var m dns.Msg
		if m.Unpack(wire) != nil {
			return
		}
		next, code := z.Update(m.Answer, m.Ns)
		if next == z {
			return
		}
		if code != dns.RcodeSuccess {
			t.Fatal("changed and refused")
		}
		if err := os.WriteFile(path, next.text(), 0o600); err != nil {
			t.Fatal(err)
		}
		back, err := ReadFile(path, "cast.example.")
		if err != nil {
			t.Fatalf("%v\n%s", err, next.text())
		}
		if len(back.RRs()) != len(next.RRs()) {
			t.Errorf("%d RRs, %d on disk\n%s", len(next.RRs()), len(back.RRs()), next.text())
		}
	})
}
