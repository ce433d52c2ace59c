package record

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func testKey(seed byte) Key {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	return NewKey(private.Public().(ed25519.PublicKey))
}

func mustSessions(t testing.TB, text string) Sessions {
	t.Helper()
	ss, err := ParseSessions(text)
	if err != nil {
		t.Fatal(err)
	}
	return ss
}

func sample(t testing.TB) Record {
	return Record{
		Name: "web.cast.example.", Address: netip.MustParseAddr("239.192.1.2"), Owner: "ops.team@example.com", Private: true,
		Keys:     []Key{testKey(1), testKey(2)},
		Sessions: mustSessions(t, "Mon-Fri 08:00-18:00 UTC, Sat 22:00-02:00 America/New_York"),
		Until:    time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC),
	}
}

// vip is a VIP's record.
func vip(t testing.TB) Record {
	t.Helper()
	return Record{
		Name: "shop.cast.example.", Address: netip.MustParseAddr("192.0.2.80"), Owner: "ops@example.com", Keys: []Key{testKey(1)},
		Destinations: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("10.3.0.4/32")},
	}
}

func TestDestinations(t *testing.T) {
	r := vip(t)
	want := []string{
		"v=manycast1", "name=shop.cast.example.", "address=192.0.2.80", "owner=ops@example.com", "flag=public",
		"key=34750f98 ed25519 iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=", "destination=10.2.0.0/16", "destination=10.3.0.4/32",
	}
	if diff := cmp.Diff(want, r.Strings()); diff != "" {
		t.Error(diff)
	}
	six := r
	six.Address = netip.MustParseAddr("2001:db8::80")
	six.Destinations = []netip.Prefix{netip.MustParsePrefix("2001:db8:3::/48"), netip.MustParsePrefix("2001:db8:4::1/128")}
	for _, r := range []Record{r, six} {
		if got, err := ParseStrings(r.Strings()); err != nil || !got.Equal(r) {
			t.Errorf("%+v, %v", got, err)
		}
		wire, err := (&dns.Msg{Answer: r.RRs(300), Compress: true}).Pack()
		if err != nil {
			t.Fatal(err)
		}
		var back dns.Msg
		if err := back.Unpack(wire); err != nil {
			t.Fatal(err)
		}
		if got, err := ParseRRs(back.Answer); err != nil || !got.Equal(r) {
			t.Errorf("through the wire: %+v, %v", got, err)
		}
		text, err := Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Unmarshal(text); err != nil || len(got) != 1 || !got[0].Equal(r) {
			t.Errorf("through a file: %+v, %v\n%s", got, err, text)
		}
	}
	if got := r.Forward(300)[3].String(); got != "shop.cast.example.\t300\tIN\tAPL\t1:10.2.0.0/16 1:10.3.0.4/32" {
		t.Errorf("APL: %s", got)
	}
	other := r
	other.Destinations = other.Destinations[:1]
	if other.Equal(r) {
		t.Error("other destinations are the same record")
	}
	if got, err := ParseRRs(append(other.Forward(1)[3:4], r.Forward(1)[4:]...)); err == nil {
		t.Errorf("an APL that contradicts the text: %+v", got)
	}
}

func TestDestinationsRefused(t *testing.T) {
	for what, change := range map[string]func(*Record){
		"of a group":      func(r *Record) { r.Address, r.Private = netip.MustParseAddr("239.1.2.3"), true },
		"without a key":   func(r *Record) { r.Keys = nil },
		"too many":        func(r *Record) { r.Destinations = manyPrefixes(DestinationsMax + 1) },
		"other family":    func(r *Record) { r.Destinations[1] = netip.MustParsePrefix("2001:db8::/32") },
		"twice":           func(r *Record) { r.Destinations[1] = r.Destinations[0] },
		"bits behind":     func(r *Record) { r.Destinations[1] = netip.MustParsePrefix("10.3.0.4/24") },
		"everybody":       func(r *Record) { r.Destinations[1] = netip.MustParsePrefix("0.0.0.0/0") },
		"the user's host": func(r *Record) { r.Destinations[1] = netip.MustParsePrefix("127.0.0.0/8") },
		"groups":          func(r *Record) { r.Destinations[1] = netip.MustParsePrefix("239.0.0.0/8") },
		"nothing":         func(r *Record) { r.Destinations[1] = netip.Prefix{} },
		"IPv4 as IPv6":    func(r *Record) { r.Destinations[1] = netip.MustParsePrefix("::ffff:10.0.0.0/104") },
	} {
		r := vip(t)
		change(&r)
		if err := r.Validate(); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	r := vip(t)
	r.Destinations = manyPrefixes(DestinationsMax)
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
}

func manyPrefixes(n int) []netip.Prefix {
	out := make([]netip.Prefix, n)
	for i := range out {
		out[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)
	}
	return out
}

func TestStringsGolden(t *testing.T) {
	want := []string{
		"v=manycast1", "name=web.cast.example.", "address=239.192.1.2", "owner=ops.team@example.com", "flag=private",
		"key=34750f98 ed25519 iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=",
		"key=6a3803d5 ed25519 gTl3Dqh9F19Wo1Rmw0x+zMuNipG07jeiXfYPW4/Js5Q=",
		"session=Mon-Fri 08:00-18:00 UTC", "session=Sat 22:00-02:00 America/New_York", "until=2027-03-01T12:00:00Z",
	}
	r := sample(t)
	if diff := cmp.Diff(want, r.Strings()); diff != "" {
		t.Error(diff)
	}
	got, err := ParseStrings(want)
	if err != nil || !got.Equal(r) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseStringsRefuses(t *testing.T) {
	good := sample(t).Strings()
	edit := func(i int, s string) []string {
		out := append([]string(nil), good...)
		out[i] = s
		return out
	}
	for name, text := range map[string][]string{
		"unknown field":     append(append([]string(nil), good...), "x=1"),
		"flag missing":      append(append([]string(nil), good[:4]...), good[5:]...),
		"flag twice":        append(append([]string(nil), good[:5]...), good[4:]...),
		"flag misspelt":     edit(4, "flag=Private"),
		"public in 239/8":   edit(4, "flag=public"),
		"name in capitals":  edit(1, "name=WEB.cast.example."),
		"name not full":     edit(1, "name=web"),
		"name with escapes": edit(1, `name=we\.b.cast.example.`),
		"address":           edit(2, "address=239.1"),
		"owner":             edit(3, "owner=nobody"),
		"key id":            edit(5, strings.Replace(good[5], "34", "35", 1)),
		"key base64":        edit(5, strings.TrimSuffix(good[5], "=")),
		"same key":          edit(6, good[5]),
		"session":           edit(7, "session=Mon 08:00-18:00"),
		"until not UTC":     edit(9, "until=2027-03-01T13:00:00+01:00"),
		"order":             append(append([]string(nil), good[:7]...), good[9], good[7], good[8]),
	} {
		if r, err := ParseStrings(text); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	for _, text := range [][]string{nil, {"v=spf1 -all"}, {"v=manycast2", "name=x."}} {
		if _, err := ParseStrings(text); !errors.Is(err, ErrNone) {
			t.Errorf("%q: %v, want ErrNone", text, err)
		}
	}
}

func TestFlagAgreesWithAddress(t *testing.T) {
	for address, wants := range map[string][2]bool{ // allowed as public, as private
		"224.2.128.1": {true, false}, "231.255.255.255": {true, false}, "232.0.0.0": {false, true},
		"239.255.255.255": {false, true}, "192.0.2.80": {true, true}, "ff3e::1": {true, true},
	} {
		r := sample(t)
		r.Address = netip.MustParseAddr(address)
		for i, private := range []bool{false, true} {
			r.Private = private
			if err := r.Validate(); (err == nil) != wants[i] {
				t.Errorf("%s private=%v: %v", address, private, err)
			}
		}
	}
}

func TestRRsThroughTheWire(t *testing.T) {
	for _, address := range []string{"239.192.1.2", "ff3e::8000:1", "192.0.2.80"} {
		r := sample(t)
		r.Address = netip.MustParseAddr(address)
		m := &dns.Msg{Answer: r.RRs(300), Compress: true}
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		var back dns.Msg
		if err := back.Unpack(wire); err != nil {
			t.Fatal(err)
		}
		got, err := ParseRRs(back.Answer)
		if err != nil || !got.Equal(r) {
			t.Errorf("%s: %+v, %v", address, got, err)
		}
		for _, rrs := range [][]dns.RR{back.Answer[:len(r.Forward(0))], back.Answer[len(r.Forward(0)):]} {
			if got, err := ParseRRs(rrs); err != nil || !got.Equal(r) {
				t.Errorf("%s, one side: %+v, %v", address, got, err)
			}
		}
	}
}

func TestRRsGolden(t *testing.T) {
	r := sample(t)
	r.Sessions, r.Until, r.Keys = nil, time.Time{}, r.Keys[:1]
	txt := `"v=manycast1" "name=web.cast.example." "address=239.192.1.2" "owner=ops.team@example.com" "flag=private" ` +
		`"key=34750f98 ed25519 iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="`
	var want []string
	for _, name := range []string{"web.cast.example.", "2.1.192.239.in-addr.arpa."} {
		if name[0] == '2' {
			want = append(want, name+"\t300\tIN\tPTR\tweb.cast.example.")
		}
		want = append(want, name+"\t300\tIN\tA\t239.192.1.2",
			name+"\t300\tIN\tRP\t"+`ops\.team.example.com. _manycast.web.cast.example.`,
			name+"\t300\tIN\tIPSECKEY\t10 0 4 . iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=",
			name+"\t300\tIN\tTXT\t"+txt, "_manycast."+name+"\t300\tIN\tTXT\t"+txt)
	}
	var got []string
	for _, rr := range r.RRs(300) {
		got = append(got, rr.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseRRsCrossChecks(t *testing.T) {
	r := sample(t)
	if _, err := ParseRRs(nil); !errors.Is(err, ErrNone) {
		t.Errorf("no RRs: %v", err)
	}
	other := r
	other.Owner = "someone@example.org"
	foreign := sample(t)
	foreign.Keys = []Key{testKey(9)}
	for name, rrs := range map[string][]dns.RR{
		"two records":   append(r.RRs(1), other.RRs(1)...),
		"other owner":   append(other.Forward(1)[1:2], r.Forward(1)[len(r.Forward(1))-1]),
		"foreign key":   append(foreign.Forward(1)[2:3], r.Forward(1)[2:]...),
		"missing key":   append(r.Forward(1)[:2], r.Forward(1)[3:]...),
		"other address": {mustRR(t, "web.cast.example. 1 IN A 239.1.1.1"), r.Forward(1)[5]},
		"other name":    {&dns.TXT{Hdr: header("mail.cast.example.", dns.TypeTXT, 1), Txt: r.Strings()}},
		"other PTR":     {mustRR(t, "2.1.192.239.in-addr.arpa. 1 IN PTR x.example."), r.Forward(1)[5]},
	} {
		if got, err := ParseRRs(rrs); err == nil {
			t.Errorf("%s: taken: %+v", name, got)
		}
	}
	spf := mustRR(t, `web.cast.example. 1 IN TXT "v=spf1 -all"`)
	if got, err := ParseRRs(append(r.Forward(1), spf)); err != nil || !got.Equal(r) {
		t.Errorf("beside another TXT: %v", err)
	}
}

func mustRR(t testing.TB, text string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

func TestFileRoundTrip(t *testing.T) {
	a, b := sample(t), sample(t)
	b.Address, b.Sessions, b.Until = netip.MustParseAddr("239.1.1.1"), nil, time.Time{}
	text, err := Marshal(a, b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Unmarshal(text)
	if err != nil || len(got) != 2 || !got[0].Equal(a) || !got[1].Equal(b) {
		t.Errorf("%+v, %v\n%s", got, err, text)
	}
	if _, err := Unmarshal(append(text, "---\nnmae: x\n"...)); err == nil {
		t.Error("unknown field taken")
	}
	if _, err := Unmarshal(append(append(text, "---\n"...), text...)); err == nil {
		t.Error("two records of one address taken")
	}
	if _, err := Unmarshal(bytes.Replace(text, []byte("flag: private\n"), nil, 1)); err == nil {
		t.Error("missing flag taken")
	}
}

func TestTimely(t *testing.T) {
	r := sample(t)
	friday := time.Date(2027, 2, 26, 9, 0, 0, 0, time.UTC)
	if !r.Timely(friday) || r.Timely(friday.Add(12*time.Hour)) || r.Timely(friday.AddDate(0, 0, 7)) {
		t.Error("want: in session, out of session, expired")
	}
}

func FuzzParseStrings(f *testing.F) {
	f.Add(strings.Join(sample(f).Strings(), "\x00"))
	f.Add(strings.Join(vip(f).Strings(), "\x00"))
	f.Fuzz(func(t *testing.T, text string) {
		parts := strings.Split(text, "\x00")
		r, err := ParseStrings(parts)
		if err != nil {
			return
		}
		if diff := cmp.Diff(parts, r.Strings()); diff != "" {
			t.Error(diff)
		}
		if got, err := ParseRRs(r.RRs(1)); err != nil || !got.Equal(r) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func FuzzParseRRs(f *testing.F) {
	wire, err := (&dns.Msg{Answer: sample(f).RRs(1), Compress: true}).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	f.Fuzz(func(t *testing.T, wire []byte) {
		var m dns.Msg
		if m.Unpack(wire) != nil {
			return
		}
		if r, err := ParseRRs(m.Answer); err == nil && r.Validate() != nil {
			t.Errorf("invalid record taken: %+v", r)
		}
	})
}

func FuzzUnmarshal(f *testing.F) {
	text, err := Marshal(sample(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		records, err := Unmarshal(text)
		if err != nil {
			return
		}
		again, err := Marshal(records...)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Unmarshal(again); err != nil || len(back) != len(records) {
			t.Errorf("%v\n%s", err, again)
		}
	})
}
