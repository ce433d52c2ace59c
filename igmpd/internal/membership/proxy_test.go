package membership

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/igmp"
)

func reports(actions []Action) string {
	var all []string
	for _, a := range actions {
		if s, ok := a.(SendReport); ok {
			for _, r := range s.Records {
				all = append(all, fmt.Sprintf("%v(%s)", r.Type, letters(r.Sources)))
			}
		}
	}
	return strings.Join(all, " ")
}

func TestToldUpstream(t *testing.T) {
	table, now := newTable(t)
	if got := reports(table.V2Report(now, "lan", pub)); got != "CHANGE_TO_EXCLUDE_MODE()" {
		t.Fatalf("told %q", got)
	}
	if got := reports(table.Tick(now.Add(time.Second))); got != "CHANGE_TO_EXCLUDE_MODE()" {
		t.Fatalf("repeated %q", got)
	}
	if got := reports(table.Tick(now.Add(2 * time.Second))); got != "" {
		t.Fatalf("repeated once more: %q", got)
	}
	router := netip.MustParseAddr("10.2.0.1")
	if got := reports(table.Query(now.Add(3*time.Second), "up", router, igmp.Query{Version: 3})); got != "MODE_IS_EXCLUDE()" {
		t.Fatalf("answered %q", got)
	}
	if got := reports(table.Query(now.Add(3*time.Second), "lan", router, igmp.Query{Version: 3})); got != "" {
		t.Fatalf("answered a query from below: %q", got)
	}
	var told string
	for at := now.Add(4 * time.Second); at.Before(now.Add(300 * time.Second)); at = at.Add(time.Second) {
		told += reports(table.Tick(at))
	}
	if told != "CHANGE_TO_INCLUDE_MODE()CHANGE_TO_INCLUDE_MODE()" {
		t.Fatalf("at the end told %q", told)
	}
}
