package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFEC(t *testing.T) {
	for name, c := range map[string]struct {
		bytes string
		want  FEC
	}{
		"bits outside the length": {"0401 000f 0000002a 0100 0007 02 0001 11 0affff", FEC{prefix("10.255.128.0/17")}},
		"mapped IPv4":             {"0401 001c 0000002a 0100 0014 02 0002 80 00000000000000000000ffff0a000001", FEC{Prefix{addrPrefix("::ffff:10.0.0.1", 128)}}},
		"IPv6 default":            {"0401 000c 0000002a 0100 0004 02 0002 00", FEC{prefix("::/0")}},
		// RFC 5918 section 4: what stands beside a typed wildcard is ignored
		"typed wildcard first": {"0402 0014 0000002a 0100 000c 05 02 02 0001 02 0001 18 0a0000", FEC{TypedWildcard{IPv4}}},
		"typed wildcard last":  {"0402 000e 0000002a 0100 0006 01 05 02 02 0002", FEC{TypedWildcard{IPv6}}},
	} {
		m, _, err := parseMessage(unhex(t, c.bytes))
		var got FEC
		switch m := m.(type) {
		case LabelRequest:
			got = m.FEC
		case LabelWithdraw:
			got = m.FEC
		}
		if diff := cmp.Diff(c.want, got, equate); err != nil || diff != "" {
			t.Errorf("%s: error %v (-want +got):\n%s", name, err, diff)
		}
		b, err := AppendMessage(nil, m)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again, _, err := parseMessage(b); err != nil || !cmp.Equal(m, again, equate) {
			t.Errorf("%s: became %+v, error %v", name, again, err)
		}
	}
}

// Elements are keys of maps, and equal where they mean the same.
func TestElementsCompare(t *testing.T) {
	labels := map[FECElement]Label{prefix("10.0.0.0/8"): 16, Wildcard{}: 17, TypedWildcard{IPv4}: 18}
	if labels[prefix("10.0.0.0/8")] != 16 || labels[TypedWildcard{IPv4}] != 18 || labels[FECElement(Wildcard{})] != 17 {
		t.Errorf("%v", labels)
	}
}

func TestFECString(t *testing.T) {
	f := FEC{prefix("10.0.0.0/8"), Wildcard{}, TypedWildcard{IPv6}}
	if got := f.String(); got != "[10.0.0.0/8 wildcard wildcard of IPv6]" {
		t.Error(got)
	}
}
