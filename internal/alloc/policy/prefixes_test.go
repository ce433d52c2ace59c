package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/portion"
)

func prefix(text string, servers ...string) Prefix {
	return Prefix{portion.MustParse(text), servers}
}

// TestCutKeepsTheMoreSpecific asks for addresses inside and outside of nested prefixes.
func TestCutKeepsTheMoreSpecific(t *testing.T) {
	got, err := Cut([]Prefix{
		prefix("10.0.0.0/8", "s1"), prefix("10.9.0.0/16", "s2"), prefix("10.9.3.0/24", "s3"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range got {
		for _, q := range got[:i] {
			if p.Portion.Overlaps(q.Portion) {
				t.Errorf("%v and %v overlap", p.Portion, q.Portion)
			}
		}
	}
	for text, want := range map[string]string{
		"10.1.1.1": "s1", "10.9.1.1": "s2", "10.9.3.1": "s3", "10.9.2.255": "s2", "10.255.0.0": "s1", "11.1.1.1": "",
	} {
		owner := ""
		for _, p := range got {
			if p.Portion.Contains(netip.MustParseAddr(text)) {
				owner += p.Servers[0]
			}
		}
		if owner != want {
			t.Errorf("%s goes to %q, want %q", text, owner, want)
		}
	}
}

func TestCutIsBounded(t *testing.T) {
	many := []Prefix{}
	for i := range 65 {
		many = append(many, prefix(fmt.Sprintf("10.%d.0.0/16", i), "s1"))
	}
	if _, err := Cut(many[:64]); err != nil {
		t.Error(err)
	}
	if _, err := Cut(many); err == nil || !strings.Contains(err.Error(), "at most 64") {
		t.Errorf("65 prefixes: %v", err)
	}
	nested := []Prefix{prefix("10.0.0.0/8", "s1")}
	for i := range 8 {
		nested = append(nested, prefix(fmt.Sprintf("10.%d.0.0/24", 17*i), "s2"))
	}
	if _, err := Cut(nested); err == nil || !strings.Contains(err.Error(), "nest them less deeply") {
		t.Errorf("eight nested prefixes: %v", err)
	}
}
