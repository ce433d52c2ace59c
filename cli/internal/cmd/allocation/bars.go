package allocation

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/manycast/manycast/cli/internal/pool"
)

// Widths of a bar in columns.
const (
	plainWidth = 50
	maxWidth   = 100
)

// drawAll draws each allocation: blocks of an eighth of a column in a terminal of that many columns, # elsewhere.
func drawAll(out io.Writer, all []shown, columns int, terminal bool) error {
	var buf bytes.Buffer
	for i, a := range all {
		if i > 0 {
			buf.WriteByte('\n')
		}
		draw(&buf, a, columns, terminal)
	}
	_, err := out.Write(buf.Bytes())
	return err
}

func draw(out *bytes.Buffer, a shown, columns int, terminal bool) {
	about := "nothing is allocated yet"
	switch {
	case a.Static:
		about = "static"
	case a.Epoch != "":
		about = "epoch " + a.epoch() + ", " + a.Slots
	}
	fmt.Fprintf(out, "%s: %s\n", a.Service, about)
	longest := 0
	for _, w := range a.Servers {
		longest = max(longest, utf8.RuneCountInString(w.Name))
	}
	width := plainWidth
	if terminal && columns > 0 {
		width = min(max(columns-longest-len("   100.0%  65536"), 10), maxWidth)
	}
	for _, w := range a.Servers {
		cells := bar(w.Fraction, width, terminal)
		fmt.Fprintf(out, "%-*s  %s%s %6s", longest, w.Name, cells, strings.Repeat(" ", width-utf8.RuneCountInString(cells)), pool.Percent(w.Fraction))
		if !a.Static {
			fmt.Fprintf(out, "  %d", w.Slots)
		}
		out.WriteByte('\n')
	}
}

// bar is at most width columns; what is more than nothing shows.
func bar(fraction float64, width int, blocks bool) string {
	if !blocks {
		n := int(math.Round(fraction * float64(width)))
		if n == 0 && fraction > 0 {
			n = 1
		}
		return strings.Repeat("#", n)
	}
	eighths := int(math.Round(fraction * float64(8*width)))
	if eighths == 0 && fraction > 0 {
		eighths = 1
	}
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return text
}
