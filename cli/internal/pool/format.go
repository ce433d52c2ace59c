package pool

import (
	"fmt"
	"time"

	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/alloc"
)

// Percent writes a fraction as "33.6%".
func Percent(fraction float64) string { return fmt.Sprintf("%.1f%%", 100*fraction) }

// Age writes a duration in its largest one or two units: "4s", "3m12s", "5h2m", "3d4h".
func Age(d time.Duration) string {
	s := int(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
}

// Epoch writes the epoch of an allocation, "-" before the first.
func Epoch(a alloc.Allocation) string {
	if a.Zero() {
		return "-"
	}
	return a.Epoch.String()
}

// YesNo writes a flag in a table.
func YesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Details is a table of names and values, one a line.
func Details(lines [][]string) cmdutil.Table { return cmdutil.Table{Header: lines[0], Rows: lines[1:]} }
