package portion

import (
	"net/netip"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"10.0.0.0/8", "10.0.0.0/8"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"10.0.1.5", "10.0.1.5"},
		{"10.0.1.5/32", "10.0.1.5"},
		{"0.0.0.3/0.0.0.255", "0.0.0.3/0.0.0.255"},
		{"10.0.0.0/255.0.0.0", "10.0.0.0/8"},
		{"2001:db8::/32", "2001:db8::/32"},
		{"2001:db8::1", "2001:db8::1"},
		{"::3/::ff", "::3/::ff"},
		{"::ffff:10.0.0.1/255.255.255.255", "10.0.0.1"},
	} {
		p, err := Parse(c.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.in, err)
			continue
		}
		if p.String() != c.out {
			t.Errorf("Parse(%q) = %s, want %s", c.in, p, c.out)
		}
		if again, err := Parse(p.String()); err != nil || again != p {
			t.Errorf("Parse(%q) = %v, %v, want %v", p, again, err, p)
		}
	}
	for _, in := range []string{
		"", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/8", "0.0.1.3/0.0.0.255", "10.0.0.0/::", "fe80::1%eth0", "x", "10.0.0.0/8/8",
	} {
		if p, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", in, p)
		}
	}
}

func TestNewDropsBitsOutsideTheMask(t *testing.T) {
	p, err := New(netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("255.0.0.255"))
	if err != nil || p.String() != "10.0.0.3/255.0.0.255" {
		t.Errorf("got %v, %v", p, err)
	}
	if _, err := New(netip.Addr{}, netip.Addr{}); err == nil {
		t.Error("no error for the zero address")
	}
}

func TestPortionRelations(t *testing.T) {
	p := MustParse
	for _, c := range []struct {
		a, b      string
		overlap   bool
		covers    bool
		intersect string
	}{
		{"10.0.0.0/8", "10.0.0.3/255.0.0.255", true, true, "10.0.0.3/255.0.0.255"},
		{"10.0.0.0/8", "0.0.0.3/0.0.0.255", true, false, "10.0.0.3/255.0.0.255"},
		{"10.0.0.0/8", "11.0.0.0/8", false, false, ""},
		{"0.0.0.0/0", "::/0", false, false, ""},
		{"::/0", "2001:db8::1", true, true, "2001:db8::1"},
	} {
		a, b := p(c.a), p(c.b)
		if a.Overlaps(b) != c.overlap || b.Overlaps(a) != c.overlap {
			t.Errorf("%s overlaps %s: want %v", a, b, c.overlap)
		}
		if a.Covers(b) != c.covers {
			t.Errorf("%s covers %s: want %v", a, b, c.covers)
		}
		if i, ok := a.Intersect(b); ok != c.overlap || ok && i.String() != c.intersect {
			t.Errorf("%s and %s intersect in %s, %v, want %q", a, b, i, ok, c.intersect)
		}
	}
	if (Portion{}).Contains(netip.IPv4Unspecified()) || (Portion{}).IsValid() || (Portion{}).Overlaps(All4()) {
		t.Error("the zero Portion contains something")
	}
	if n := p("0.0.0.3/0.0.0.255").MaskBits(); n != 8 {
		t.Errorf("MaskBits = %d, want 8", n)
	}
	if n := p("2001:db8::/32").MaskBits(); n != 32 {
		t.Errorf("MaskBits = %d, want 32", n)
	}
	if !All4().Contains(netip.MustParseAddr("::ffff:1.2.3.4")) || All6().Contains(netip.MustParseAddr("1.2.3.4")) {
		t.Error("families are mixed up")
	}
}

func TestHalves(t *testing.T) {
	for _, c := range []struct {
		whole, lowOne, lowOther, highOne, highOther string
	}{
		{"0.0.0.0/0", "0.0.0.1/0.0.0.1", "0.0.0.0/0.0.0.1", "128.0.0.0/1", "0.0.0.0/1"},
		{"0.0.0.3/0.0.0.255", "0.0.1.3/0.0.1.255", "0.0.0.3/0.0.1.255", "128.0.0.3/128.0.0.255", "0.0.0.3/128.0.0.255"},
		{"10.0.0.0/8", "10.0.0.1/255.0.0.1", "10.0.0.0/255.0.0.1", "10.128.0.0/9", "10.0.0.0/9"},
		{"10.0.1.4/31", "10.0.1.5", "10.0.1.4", "10.0.1.5", "10.0.1.4"},
		{"::/0", "::1/::1", "::/::1", "8000::/1", "::/1"},
		{"::/::ffff:ffff:ffff:ffff", "0:0:0:1::/::1:ffff:ffff:ffff:ffff", "::/::1:ffff:ffff:ffff:ffff", "8000::/8000::ffff:ffff:ffff:ffff", "::/8000::ffff:ffff:ffff:ffff"},
	} {
		whole := MustParse(c.whole)
		for _, h := range []struct {
			highest    bool
			one, other string
		}{{false, c.lowOne, c.lowOther}, {true, c.highOne, c.highOther}} {
			one, other, ok := whole.Halves(h.highest)
			if !ok || one != MustParse(h.one) || other != MustParse(h.other) {
				t.Errorf("%v, highest %v: %v and %v, %v; want %s and %s", whole, h.highest, one, other, ok, h.one, h.other)
			}
			if one.Overlaps(other) || one.Size() != whole.Size()/2 || other.Size() != whole.Size()/2 || !whole.Covers(one) || !whole.Covers(other) {
				t.Errorf("%v and %v are no halves of %v", one, other, whole)
			}
		}
	}
	for _, p := range []Portion{MustParse("10.0.0.1"), MustParse("2001:db8::1"), {}} {
		if one, other, ok := p.Halves(true); ok || one.IsValid() || other.IsValid() {
			t.Errorf("%v has halves %v and %v", p, one, other)
		}
	}
	if (Portion{}).Size() != 0 || All6().Size() != 1 || MustParse("10.0.0.0/8").Size() != 1.0/256 {
		t.Error("sizes are wrong")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "10.0.1.5", "0.0.0.3/0.0.0.255", "2001:db8::/32", "::3/::ff", "::ffff:1.2.3.4/120"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil {
			return
		}
		if !p.Contains(p.Addr) {
			t.Fatalf("Parse(%q) = %v does not contain its own address", s, p)
		}
		if again, err := Parse(p.String()); err != nil || again != p {
			t.Fatalf("Parse(%q) = %v, %v, want %v", p, again, err, p)
		}
	})
}
