package bgp

import (
	"net/netip"
	"testing"
)

func TestText(t *testing.T) {
	for _, f := range Families() {
		if got, err := ParseFamily(f.String()); err != nil || got != f {
			t.Errorf("%v: %v, %v", f, got, err)
		}
	}
	if _, err := ParseFamily("ipv4"); err == nil {
		t.Error("ipv4 is a family")
	}
	for text, want := range map[string]Community{"graceful-shutdown": 0xffff0000, "65001:100": 65001<<16 | 100, "0:0": 0, "65535:65535": 0xffffffff, "65535:65281": NoExport} {
		c, err := ParseCommunity(text)
		if err != nil || c != want {
			t.Errorf("%q: %v, %v", text, c, err)
		}
		if again, err := ParseCommunity(c.String()); err != nil || again != c {
			t.Errorf("%q, written as %q, is %v, %v", text, c, again, err)
		}
	}
	for _, text := range []string{"", "1", "1:", ":1", "65536:1", "1:65536", "1:2:3", "-1:1", "no-such"} {
		if c, err := ParseCommunity(text); err == nil {
			t.Errorf("%q is %v", text, c)
		}
	}
}

func TestPrefixRange(t *testing.T) {
	r := PrefixRange{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Least: 16, Most: 24}
	for text, want := range map[string]bool{
		"10.0.0.0/8": false, "10.0.0.0/16": true, "10.255.255.0/24": true, "10.0.0.0/25": false, "11.0.0.0/16": false, "0.0.0.0/0": false, "2001:db8::/24": false,
	} {
		if r.Contains(netip.MustParsePrefix(text)) != want {
			t.Errorf("%s: want %v", text, want)
		}
	}
}
