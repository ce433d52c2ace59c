package igmp

import (
	"encoding/hex"
	"errors"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var equate = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// golden reads a packet of testdata. The files were made with scapy 2.5 (IGMP, IGMPv3mq and IGMPv3mr of its contrib, or by
// hand where the file says so) and tshark 4.0 decoded each one in an IP packet to the fields that the tests want.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			digits.WriteString(strings.Join(strings.Fields(line), ""))
		}
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

var goldens = []struct {
	file    string
	message Message
	oneWay  bool // bears what is never sent
}{
	{file: "v1query", message: Query{Version: 1, MaxResp: 10 * time.Second, Group: addr("0.0.0.0")}},
	{file: "v1report", message: V1Report{Group: addr("239.1.2.3")}},
	{file: "v2query", message: Query{Version: 2, MaxResp: 10 * time.Second, Group: addr("239.1.2.3")}},
	{file: "v2report", message: V2Report{Group: addr("239.1.2.3")}},
	{file: "v2leave", message: Leave{Group: addr("239.1.2.3")}},
	{file: "v3query", message: Query{
		Version: 3, MaxResp: 10 * time.Second, Group: addr("239.1.2.3"), Suppress: true, QRV: 2, QQI: 125 * time.Second,
		Sources: []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2")},
	}},
	{file: "v3query_float", message: Query{
		Version: 3, MaxResp: 2150400 * time.Millisecond, Group: addr("0.0.0.0"), QRV: 7, QQI: 304 * time.Second,
	}},
	{file: "v3query_ext", message: Query{
		Version: 3, MaxResp: 10 * time.Second, Group: addr("0.0.0.0"), QRV: 2, QQI: 125 * time.Second,
		Extensions: []Extension{{Type: 65535, Value: []byte("abc")}},
	}},
	{file: "v3report", message: Report{Records: []Record{
		{Type: ModeIsExclude, Group: addr("239.1.2.3")},
		{Type: ModeIsInclude, Group: addr("232.1.2.3"), Sources: []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2")}},
		{Type: BlockOldSources, Group: addr("232.9.9.9"), Sources: []netip.Addr{addr("10.0.0.3")}},
	}}},
	{file: "v3report_aux", oneWay: true, message: Report{Records: []Record{
		{Type: ChangeToExclude, Group: addr("239.1.2.3"), Sources: []netip.Addr{addr("10.0.0.1")}},
		{Type: ChangeToInclude, Group: addr("239.1.2.4")},
	}}},
	{file: "v3report_ext", message: Report{
		Records:    []Record{{Type: ChangeToExclude, Group: addr("239.80.80.80")}},
		Extensions: []Extension{{Type: ExtensionNoOp, Value: []byte{}}, {Type: ExtensionExperiment, Value: []byte("hello")}},
	}},
}

func TestGolden(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.file, func(t *testing.T) {
			b := golden(t, g.file)
			m, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(g.message, m, equate); diff != "" {
				t.Errorf("parsed (-want +got):\n%s", diff)
			}
			if g.oneWay {
				return
			}
			out, err := Marshal(g.message)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(b, out); diff != "" {
				t.Errorf("marshalled (-want +got):\n%s", diff)
			}
		})
	}
}

// fix gives b the right checksum.
func fix(b []byte) []byte {
	if len(b) >= headerBytes {
		b, _ = seal(b, 0)
	}
	return b
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"empty":                      {nil, ErrTruncated},
		"7 bytes":                    {golden(t, "v2report")[:7], ErrTruncated},
		"wrong checksum":             {append([]byte{0x16, 0, 0xf8, 0xfb}, 239, 1, 2, 3), ErrChecksum},
		"unknown type":               {fix([]byte{0x13, 0, 0, 0, 239, 1, 2, 3}), ErrUnknown},
		"query of 10 bytes":          {fix(golden(t, "v3query")[:10]), ErrMalformed},
		"query with fewer sources":   {fix(golden(t, "v3query")[:19]), ErrTruncated},
		"report with fewer records":  {fix(golden(t, "v3report")[:36]), ErrTruncated},
		"record with fewer sources":  {fix(golden(t, "v3report")[:42]), ErrTruncated},
		"65535 records in 8 bytes":   {fix([]byte{0x22, 0, 0, 0, 0, 0, 0xff, 0xff}), ErrTruncated},
		"65535 sources in a record":  {fix([]byte{0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0xff, 0xff, 239, 1, 2, 3}), ErrTruncated},
		"auxiliary data cut":         {fix(golden(t, "v3report_aux")[:24]), ErrTruncated},
		"more than a packet carries": {make([]byte, MaxBytes+1), ErrMalformed},
	} {
		if m, err := Parse(c.bytes); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, error %v; want %v", name, m, err, c.want)
		}
	}
}

// RFC 9279 section 5: where the extension does not validate, all of it is ignored and the rest holds.
func TestBrokenExtensionIsIgnored(t *testing.T) {
	whole := golden(t, "v3report_ext")
	for name, b := range map[string][]byte{
		"E bit alone":      whole[:16],
		"half a header":    whole[:22],
		"value cut":        whole[:28],
		"bytes behind":     append(append([]byte(nil), whole...), 1, 2, 3),
		"length too large": append(append([]byte(nil), whole[:16]...), 0xff, 0xfe, 0xff, 0xff, 1),
	} {
		m, err := Parse(fix(append([]byte(nil), b...)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r := m.(Report)
		if r.ExtensionErr == nil || len(r.Extensions) != 0 || len(r.Records) != 1 {
			t.Errorf("%s: %+v: want the record, no extension and the reason", name, r)
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	v6 := addr("ff02::1")
	for name, m := range map[string]Message{
		"IPv6 group":          V2Report{Group: v6},
		"no group":            Leave{},
		"version":             Query{Version: 4},
		"IPv6 source":         Query{Version: 3, Sources: []netip.Addr{v6}},
		"IPv6 record":         Report{Records: []Record{{Group: v6}}},
		"too many records":    Report{Records: make([]Record, 65536)},
		"extension too large": Report{Extensions: []Extension{{Value: make([]byte, 65536)}}},
		"report too large":    Report{Extensions: []Extension{{Value: make([]byte, 65535)}}},
	} {
		if _, err := Marshal(m); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}

func TestFloatCodes(t *testing.T) {
	last := uint32(0)
	for code := range 256 {
		v := decodeFloat(byte(code))
		if code > 0 && v <= last {
			t.Errorf("code %#x stands for %d, the one before for %d", code, v, last)
		}
		if back := encodeFloat(uint64(v)); back != byte(code) {
			t.Errorf("code %#x -> %d -> %#x", code, v, back)
		}
		last = v
	}
	for v, want := range map[uint64]byte{129: 0x80, 135: 0x80, 136: 0x81, 31744: 0xff, 31743: 0xfe, 31745: 0xff, math.MaxUint64: 0xff} {
		if got := encodeFloat(v); got != want {
			t.Errorf("encodeFloat(%d) = %#x, want %#x", v, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, g := range goldens {
		f.Add(golden(f, g.file))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(fix(b))
		if err != nil {
			return
		}
		switch v := m.(type) { // what is not sent
		case Query:
			v.ExtensionErr = nil
			m = v
		case Report:
			v.ExtensionErr = nil
			m = v
		}
		out, err := Marshal(m)
		if err != nil {
			t.Fatalf("parsed %+v cannot be sent: %v", m, err)
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("%x, sent for %+v, cannot be parsed: %v", out, m, err)
		}
		if diff := cmp.Diff(m, again, equate); diff != "" {
			t.Errorf("changed on the way (-sent +received):\n%s", diff)
		}
	})
}
