package members

import (
	"testing"
	"time"
)

// TestBudgetIsEnoughForAll: as many members as there may be, each with a report a second, go on for ever; one name takes its share alone.
func TestBudgetIsEnoughForAll(t *testing.T) {
	m, now := New(Config{}), time.Unix(0, 0)
	all := make([]*member, DefaultMembers)
	for i := range all {
		all[i] = &member{}
	}
	for range 600 {
		now = now.Add(time.Second)
		for _, p := range all {
			if !m.affords(now, "eth0", p) {
				t.Fatalf("a report is refused after %v", now.Sub(time.Unix(0, 0)))
			}
		}
	}
	flooded := 0
	for range 100_000 {
		if m.affords(now, "eth0", all[0]) {
			flooded++
		}
	}
	if flooded > ofMemberAtOnce || !m.affords(now, "eth0", all[1]) {
		t.Errorf("%d of one name are verified at once, and another is heard: want at most %d", flooded, ofMemberAtOnce)
	}
}
