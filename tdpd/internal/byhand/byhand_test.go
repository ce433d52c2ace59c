package byhand

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

func TestKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "announced")
	if p, err := Load(path); err != nil || !reflect.DeepEqual(p, Paths{}) {
		t.Fatalf("%+v, %v", p, err)
	}
	med, prefix := uint32(0), netip.MustParsePrefix("192.0.2.80/32")
	full := bgp.Path{Prefix: prefix, Attributes: bgp.Attributes{MED: &med, Prepend: 31, NextHop: netip.MustParseAddr("2001:db8::1"), Communities: []bgp.Community{bgp.GracefulShutdown, 7}}}
	p, err := Paths{}.With(bgp.Path{Prefix: prefix})
	if err == nil {
		p, err = p.With(full)
	}
	if err == nil {
		p, err = p.WithLabel(bgp.LabelledPath{Path: bgp.Path{Prefix: prefix}, Label: 1000})
	}
	if err != nil || len(p.Unicast) != 1 || len(p.Labelled) != 1 || !p.Has(prefix, true) || !p.Has(prefix, false) {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := p.Save(path); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(path); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("%+v, %v\nwant %+v", got, err, p)
	}
	d := p.Into(bgp.Desired{VIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if len(d.Unicast) != 1 || len(d.Labelled) != 1 || len(d.VIPs) != 2 || d.VIPs[1] != prefix {
		t.Errorf("%+v", d)
	}
	less := p.Without(prefix, false)
	if less.Has(prefix, false) || !less.Has(prefix, true) || !p.Has(prefix, false) {
		t.Errorf("%+v of %+v", less, p)
	}
}

func TestWhatCannotBeAnnounced(t *testing.T) {
	at := func(p string, a bgp.Attributes) bgp.Path {
		return bgp.Path{Prefix: netip.MustParsePrefix(p), Attributes: a}
	}
	for _, p := range []bgp.Path{
		{}, at("0.0.0.0/0", bgp.Attributes{}), at("10.0.0.1/8", bgp.Attributes{}), at("10.0.0.0/8", bgp.Attributes{Prepend: 32}), at("10.0.0.0/8", bgp.Attributes{NextHop: netip.MustParseAddr("127.0.0.1")}),
	} {
		if _, err := (Paths{}).With(p); err == nil {
			t.Errorf("%+v", p)
		}
	}
	if _, err := (Paths{}).WithLabel(bgp.LabelledPath{Path: at("10.0.0.0/8", bgp.Attributes{}), Label: 1 << 20}); err == nil {
		t.Error("a label of 21 bits")
	}
	path := filepath.Join(t.TempDir(), "announced")
	for _, text := range []string{"{", `{"unicast":[{"Prefix":"0.0.0.0/0"}]}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
