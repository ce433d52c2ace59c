package forger

import (
	"net/netip"
	"testing"
)

// TestOption reads what docs/wire-formats.md has.
func TestOption(t *testing.T) {
	mss, syn := []byte{2, 4, 5, 0xb4}, []byte{0xfe, 14, 0x4d, 0x44, 0x2a, 0x17, 0xc0, 0x0c, 0x1e, 0x5e, 0xc7, 0xe7, 0x5a, 0x1d}
	answer := append(append([]byte{0xfe, 20}, syn[2:]...), 10, 2, 0, 3, 0x1f, 0x90)
	said := Option{Tag: 0x2a17, Cookie: 0xc00c1e5ec7e75a1d}
	at := said
	at.Destination = netip.MustParseAddrPort("10.2.0.3:8080")
	other := append([]byte{0xfe, 14, 0, 1}, syn[4:]...)
	for name, tt := range map[string]struct {
		options [][]byte
		want    Option
		is      bool
	}{
		"SYN":                         {[][]byte{mss, {1, 1}, syn}, said, true},
		"SYN-ACK":                     {[][]byte{mss, answer, {0}}, at, true},
		"behind another experiment's": {[][]byte{other, syn}, said, true},
		"none":                        {[][]byte{mss, {1, 3, 3, 7}}, Option{}, false},
		"behind the end":              {[][]byte{mss, {0}, syn}, Option{}, false},
		"cut off":                     {[][]byte{mss, syn[:13]}, Option{}, false},
		"of another length":           {[][]byte{append([]byte{0xfe, 16}, append(syn[2:], 0, 0)...)}, Option{}, false},
		"broken":                      {[][]byte{{2, 1}, syn}, Option{}, false},
		"nothing":                     {nil, Option{}, false},
	} {
		var all []byte
		for _, o := range tt.options {
			all = append(all, o...)
		}
		if got, is := FindOption(all); got != tt.want || is != tt.is {
			t.Errorf("%s: %+v, %v", name, got, is)
		}
	}
}
