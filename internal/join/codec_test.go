package join

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/portion"
)

// golden reads a report of testdata. The files were laid out byte by byte in Python after docs/wire-formats.md and signed with
// a transcription of RFC 8032's Ed25519ctx; tshark 4.0 read both as IGMPv3 reports with a good checksum and one record.
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

func testLeave() Join {
	j := testJoin()
	j.Leave, j.Change = true, false
	j.Owner, j.Standby = portion.Set{}, portion.Set{}
	return j
}

func TestGolden(t *testing.T) {
	leave, err := Unsigned(testLeave())
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]Signed{"signed": mustSign(t, testJoin()), "leave_unsigned": leave} {
		packet := golden(t, file)
		m, err := igmp.Parse(packet)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		got, err := FromReport(m.(igmp.Report))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if diff := cmp.Diff([]Signed{want}, got, equate, equateP); diff != "" {
			t.Errorf("%s parsed (-want +got):\n%s", file, diff)
		}
		if signed := len(want.Signature) > 0; got[0].Verify(testPub) != signed {
			t.Errorf("%s: Verify is %v", file, !signed)
		}
		sent, err := igmp.Marshal(Report(want))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if diff := cmp.Diff(packet, sent); diff != "" {
			t.Errorf("%s marshalled (-want +got):\n%s", file, diff)
		}
	}
}

func TestExampleOfTheDocs(t *testing.T) {
	const path = "../../docs/wire-formats.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "### Example")
	blocks := strings.Split(example, "```")
	if len(blocks) < 2 {
		t.Fatalf("%s has no example", path)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(blocks[1]), ""))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if diff := cmp.Diff(golden(t, "signed"), b); diff != "" {
		t.Errorf("%s (-golden packet +docs):\n%s", path, diff)
	}
}

// What is taken is encoded again to the same bytes: there are no two ways to say one join.
func FuzzDecode(f *testing.F) {
	leave, err := Unsigned(testLeave())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(mustSign(f, testJoin()).Raw)
	f.Add(leave.Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		flags := byte(0)
		if len(s.Signature) > 0 {
			flags = flagSigned
		}
		again, err := s.encode(nil, flags)
		if err != nil {
			t.Fatalf("taken %+v cannot be sent: %v", s.Join, err)
		}
		if again = append(again, s.Signature...); string(again) != string(b) {
			t.Errorf("taken %x, sent %x", b, again)
		}
		if _, err := Split(s.Join, Room(1500)); err != nil && s.portions() < 30000 {
			t.Errorf("%d portions cannot be split: %v", s.portions(), err)
		}
	})
}

// FuzzFromReport holds that a report's joins survive being batched and relayed.
func FuzzFromReport(f *testing.F) {
	f.Add(golden(f, "signed"))
	f.Add(golden(f, "leave_unsigned"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := igmp.Parse(b)
		r, ok := m.(igmp.Report)
		if err != nil || !ok {
			return
		}
		joins, _ := FromReport(r)
		relayed := 0
		reports, err := Batch(joins, 65535)
		if err != nil {
			t.Fatal(err)
		}
		for _, out := range reports {
			m, err := igmp.Parse(out)
			if err != nil {
				t.Fatal(err)
			}
			list, err := FromReport(m.(igmp.Report))
			if err != nil {
				t.Fatal(err)
			}
			relayed += len(list)
		}
		if relayed != len(joins) {
			t.Errorf("%d joins of %d were relayed", relayed, len(joins))
		}
	})
}
