package join

import (
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/portion"
)

var (
	testKey  = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))
	testPub  = testKey.Public().(ed25519.PublicKey)
	testTime = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	equate   = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	equateP  = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
)

func pair(addr, mask string) portion.Portion {
	return portion.Portion{Addr: netip.MustParseAddr(addr), Mask: netip.MustParseAddr(mask)}
}

// slots returns n portions of the last address byte.
func slots(n int) []portion.Portion {
	list := make([]portion.Portion, n)
	for i := range list {
		list[i] = portion.Portion{Addr: netip.AddrFrom4([4]byte{0, 0, byte(i >> 8), byte(i)}), Mask: netip.MustParseAddr("0.0.255.255")}
	}
	return list
}

func testJoin() Join {
	return Join{
		Group:     netip.MustParseAddr("239.80.80.80"),
		Requester: netip.MustParseAddr("10.2.0.2"),
		Link:      netip.MustParsePrefix("10.2.0.0/24"),
		Time:      testTime,
		Random:    [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		Epoch:     epoch.Epoch{Term: 3, Number: 17},
		Part:      1, Parts: 1,
		Change: true,
		Owner: portion.Set{
			Permit: []portion.Portion{pair("0.0.0.0", "0.0.0.3"), pair("10.0.0.0", "255.0.0.0")},
			Deny:   []portion.Portion{pair("10.0.1.5", "255.255.255.255")},
		},
		Standby: portion.Set{Permit: []portion.Portion{pair("0.0.0.1", "0.0.0.3")}},
		KeyID:   0xc0ffee01,
	}
}

func mustSign(t testing.TB, j Join) Signed {
	t.Helper()
	s, err := Sign(j, testKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReportRoundTrip(t *testing.T) {
	leave := testJoin()
	leave.Group = netip.MustParseAddr("239.1.2.3")
	leave.Leave, leave.Change = true, false
	leave.Owner, leave.Standby = portion.Set{}, portion.Set{}
	plain, err := Unsigned(testJoin())
	if err != nil {
		t.Fatal(err)
	}
	want := []Signed{mustSign(t, testJoin()), mustSign(t, leave), plain}

	b, err := igmp.Marshal(Report(want...))
	if err != nil {
		t.Fatal(err)
	}
	m, err := igmp.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	records := m.(igmp.Report).Records
	if len(records) != 2 || records[0].Type != igmp.ChangeToInclude || records[1].Type != igmp.ChangeToExclude {
		t.Errorf("records are %v: want the leave first, one record for the two joins of a group", records)
	}
	got, err := FromReport(m.(igmp.Report))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, equate, equateP); diff != "" {
		t.Errorf("joins changed on the wire (-sent +received):\n%s", diff)
	}
	for i, signed := range []bool{true, true, false} {
		if got[i].Verify(testPub) != signed {
			t.Errorf("join %d: Verify = %v, want %v", i, !signed, signed)
		}
	}
}

func TestVerifyCoversEveryByte(t *testing.T) {
	s := mustSign(t, testJoin())
	for i := range s.Raw {
		raw := slices.Clone(s.Raw)
		raw[i] ^= 1
		if forged, err := Decode(raw); err == nil && forged.Verify(testPub) {
			t.Errorf("byte %d changed, the signature still holds", i)
		}
	}
	other := ed25519.NewKeyFromSeed([]byte("another seed of thirty-two bytes"))
	if s.Verify(other.Public().(ed25519.PublicKey)) {
		t.Error("the signature holds for another key")
	}
}

func TestSignatureIsForJoinsOnly(t *testing.T) {
	s := mustSign(t, testJoin())
	body := s.Raw[:len(s.Raw)-ed25519.SignatureSize]
	if ed25519.Verify(testPub, body, s.Signature) {
		t.Error("the signature is a plain Ed25519 signature too")
	}
	plain := append(slices.Clone(body), ed25519.Sign(testKey, body)...)
	if forged, err := Decode(plain); err != nil || forged.Verify(testPub) {
		t.Errorf("a plain Ed25519 signature of the same bytes is taken (decode: %v)", err)
	}
}

func TestFromReportWantsTheRecord(t *testing.T) {
	s := mustSign(t, testJoin())
	for name, records := range map[string][]igmp.Record{
		"none":         nil,
		"other group":  {{Type: igmp.ChangeToExclude, Group: netip.MustParseAddr("239.9.9.9")}},
		"other type":   {{Type: igmp.ChangeToInclude, Group: s.Group}},
		"with sources": {{Type: igmp.ChangeToExclude, Group: s.Group, Sources: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
	} {
		r := Report(s)
		r.Records = records
		if joins, err := FromReport(r); !errors.Is(err, ErrMalformed) || len(joins) != 0 {
			t.Errorf("%s: %d joins, error %v; want none, ErrMalformed", name, len(joins), err)
		}
	}
}

func TestFromReportKeepsTheGoodOnes(t *testing.T) {
	s := mustSign(t, testJoin())
	r := Report(s)
	future := slices.Clone(s.Raw)
	future[4] = version + 1
	r.Extensions = []igmp.Extension{
		{Type: igmp.ExtensionNoOp, Value: []byte{0, 0}},
		{Type: igmp.ExtensionExperiment, Value: []byte("somebody else's")},
		{Type: igmp.ExtensionExperiment, Value: future},
		{Type: igmp.ExtensionExperiment, Value: s.Raw[:80]},
		{Type: igmp.ExtensionExperiment, Value: s.Raw},
	}
	joins, err := FromReport(r)
	if !errors.Is(err, ErrVersion) {
		t.Errorf("error %v, want the first: ErrVersion", err)
	}
	if len(joins) != 1 || !joins[0].Verify(testPub) {
		t.Errorf("%d joins, want the good one", len(joins))
	}
}

func TestDecodeRefuses(t *testing.T) {
	base := mustSign(t, testJoin()).Raw
	for name, change := range map[string]func(b []byte) []byte{
		"empty":                 func(b []byte) []byte { return nil },
		"cut":                   func(b []byte) []byte { return b[:len(b)-1] },
		"longer":                func(b []byte) []byte { return append(b, 0) },
		"unknown flag":          func(b []byte) []byte { b[5] |= 0x80; return b },
		"record type":           func(b []byte) []byte { b[6] = byte(igmp.AllowNewSources); return b },
		"link length":           func(b []byte) []byte { b[7] = 33; return b },
		"link host bits":        func(b []byte) []byte { b[19] = 1; return b },
		"unicast group":         func(b []byte) []byte { b[8] = 10; return b },
		"multicast requester":   func(b []byte) []byte { b[12] = 239; return b },
		"time":                  func(b []byte) []byte { b[20] = 0x80; return b },
		"part 0":                func(b []byte) []byte { b[60] = 0; return b },
		"part behind the last":  func(b []byte) []byte { b[60] = 2; return b },
		"reserved":              func(b []byte) []byte { b[62] = 1; return b },
		"leave with portions":   func(b []byte) []byte { b[6] = byte(igmp.ChangeToInclude); return b },
		"more portions":         func(b []byte) []byte { b[69]++; return b },
		"fewer portions":        func(b []byte) []byte { b[69]--; return b },
		"bits outside the mask": func(b []byte) []byte { b[79] = 0x10; return b },
	} {
		if _, err := Decode(change(slices.Clone(base))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}

func TestSplitMergesBack(t *testing.T) {
	whole := testJoin()
	whole.Owner = portion.Set{Permit: slots(300), Deny: slots(40)}
	whole.Standby = portion.Set{Permit: slots(200), Deny: slots(1)}
	room := Room(1500)
	parts, err := Split(whole, room)
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 4 {
		t.Errorf("%d parts for 541 portions of 164 a part, want 4", len(parts))
	}
	if err := Stamp(parts, testTime, rand.NewChaCha8([32]byte{})); err != nil {
		t.Fatal(err)
	}
	a := NewAssembler(Limits{})
	for i, p := range parts {
		s := mustSign(t, p)
		if len(s.Raw) > room {
			t.Errorf("part %d has %d bytes, room is %d", i+1, len(s.Raw), room)
		}
		set, complete, err := a.Add(testTime, s)
		if err != nil || complete != (i == len(parts)-1) {
			t.Fatalf("part %d: complete %v, error %v", i+1, complete, err)
		}
		if complete {
			if diff := cmp.Diff([]portion.Set{whole.Owner, whole.Standby}, []portion.Set{set.Owner, set.Standby}, equate); diff != "" {
				t.Errorf("the set changed:\n%s", diff)
			}
		}
	}
}

func TestSplitRefusesTooMuch(t *testing.T) {
	whole := testJoin()
	whole.Owner.Permit = slots(20000)
	if _, err := Split(whole, 256); !errors.Is(err, ErrTooLarge) {
		t.Errorf("20,000 portions in parts of 256 bytes: error %v, want ErrTooLarge", err)
	}
	if _, err := Split(testJoin(), 100); !errors.Is(err, ErrTooLarge) {
		t.Errorf("parts of 100 bytes: error %v, want ErrTooLarge", err)
	}
}

// TestMostPortions holds to Split and to the assembler: that many go, one more does not.
func TestMostPortions(t *testing.T) {
	for _, mtu := range []int{100, 300, 576, 1500, 9000} {
		most := MostPortions(mtu)
		for n, fits := range map[int]bool{most: true, most + 1: false} {
			j := testJoin()
			j.Standby, j.Owner = portion.Set{}, portion.Set{Permit: slots(n)}
			parts, err := Split(j, Room(mtu))
			if err == nil {
				err = Stamp(parts, testTime, rand.NewChaCha8([32]byte{}))
			}
			a := NewAssembler(Limits{})
			for i := 0; i < len(parts) && err == nil; i++ {
				_, _, err = a.Add(testTime, Signed{Join: parts[i], Raw: []byte{1}})
			}
			if (err == nil) != fits && n > 0 {
				t.Errorf("%d portions in packets of %d bytes: %v, want fit %v", n, mtu, err, fits)
			}
		}
	}
	if got := MostPortions(1500); got != MaxPortions {
		t.Errorf("%d by 1500 bytes, want what routers take", got)
	}
	if got := MostPortions(100); got != 0 {
		t.Errorf("%d by 100 bytes, want none", got)
	}
}

func TestBatchFillsReports(t *testing.T) {
	const mtu = 1500
	var want []Signed
	for i := range 20 {
		j := testJoin()
		j.Requester = netip.AddrFrom4([4]byte{10, 2, 0, byte(i + 1)})
		j.Owner.Permit = slots(10 + i)
		want = append(want, mustSign(t, j))
	}
	big := testJoin()
	big.Owner.Permit = slots(400)
	reports, err := Batch(append(slices.Clone(want), mustSign(t, big)), mtu)
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v for a join of 3.3 kB, want ErrTooLarge", err)
	}
	var got []Signed
	for i, b := range reports {
		if len(b) > mtu-24 {
			t.Errorf("report %d has %d bytes", i, len(b))
		}
		m, err := igmp.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(m.(igmp.Report).Records); n != 1 {
			t.Errorf("report %d has %d records for one group", i, n)
		}
		joins, err := FromReport(m.(igmp.Report))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, joins...)
	}
	if diff := cmp.Diff(want, got, equate, equateP); diff != "" {
		t.Errorf("joins changed:\n%s", diff)
	}
	if len(reports) > 6 {
		t.Errorf("%d reports for 20 joins of 250 to 400 bytes", len(reports))
	}
}
