package allocation

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestBar(t *testing.T) {
	for _, c := range []struct {
		fraction float64
		blocks   bool
		want     string
	}{
		{0, true, ""}, {1, true, "██████████"}, {0.5, true, "█████"}, {0.0125, true, "▏"}, {0.19, true, "█▉"}, {0.00001, true, "▏"},
		{0, false, ""}, {1, false, "##########"}, {0.26, false, "###"}, {0.00001, false, "#"},
	} {
		if got := bar(c.fraction, 10, c.blocks); got != c.want {
			t.Errorf("%v: %q, want %q", c.fraction, got, c.want)
		}
	}
}

func TestBarsFitTheTerminal(t *testing.T) {
	a := shown{Service: "web", Epoch: "1.2", Slots: "suffix/16", Servers: []owner{
		{Name: "a-long-name", Slots: 65536, Fraction: 1}, {Name: "s2"},
	}}
	for _, columns := range []int{60, 80, 300} {
		var out bytes.Buffer
		draw(&out, a, columns, true)
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
				t.Errorf("%d columns in a terminal of %d: %s", n, columns, line)
			}
		}
	}
}
