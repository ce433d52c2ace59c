package report

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/lab/traffic"
)

func msAt(ms int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
}

func times(ms ...int) (out []time.Time) {
	for _, m := range ms {
		out = append(out, msAt(m))
	}
	return out
}

func TestDetected(t *testing.T) {
	tests := []struct {
		name              string
		heard, sent       []time.Time
		failed, until, ms int
		ok                bool
	}{
		{"from the last heartbeat", times(0, 50, 100), times(10, 90, 200, 340), 120, 5000, 240, true},
		{"back later", times(0, 50, 100, 900), times(10, 340, 950), 120, 800, 240, true},
		{"nothing sent after", times(0, 50, 100), times(10, 90), 120, 5000, 0, true},
		{"never heard", nil, times(10), 120, 5000, 0, false},
		{"heard after its failure alone", times(130), times(10), 120, 5000, 0, false},
		{"nobody's server", times(100), nil, 120, 5000, 0, false},
	}
	for _, tt := range tests {
		got, ok := Detected(tt.heard, tt.sent, msAt(tt.failed), msAt(tt.until))
		if ok != tt.ok || got != time.Duration(tt.ms)*time.Millisecond {
			t.Errorf("%s: %v, %v; want %d ms, %v", tt.name, got, ok, tt.ms, tt.ok)
		}
	}
}

// A server dies at 1 s and is back at 3 s, without any epoch; its users are at the standby meanwhile.
func TestWhatAFailureExcuses(t *testing.T) {
	even, odd := netip.MustParseAddr("10.1.0.12"), netip.MustParseAddr("10.1.0.13")
	tally := Tally{
		Timeline: Timeline{{
			At: msAt(0), Epoch: "1.1",
			Owner:   owners(map[netip.Addr]string{even: "s1", odd: "s2"}),
			Standby: owners(map[netip.Addr]string{even: "s2", odd: "s3"}),
		}},
		Deaths: []Death{{Server: "s1", At: msAt(1000), Gone: msAt(1500), Back: msAt(3000)}},
	}
	ended := func(user netip.Addr, server string, start, end int, how traffic.How) {
		tally.Add(traffic.Event{Kind: traffic.Close, User: user, Server: server, Start: msAt(start), End: msAt(end), How: how})
	}
	ended(even, "s1", 500, 1200, traffic.Timeout) // lost with s1
	ended(even, "s1", 1100, 1400, traffic.Reset)  // opened before anybody knew
	ended(even, "s1", 1100, 3100, traffic.Reset)  // ended when all was as before
	ended(even, "s3", 1600, 2500, traffic.Reset)  // s3 does not stand by for it
	ended(even, "s2", 1600, 2500, traffic.Reset)  // s2 gives the user back
	ended(even, "s2", 1600, 2600, traffic.Timeout)
	ended(odd, "s2", 500, 2500, traffic.Reset) // s2's own
	ended(even, "s2", 1600, 3500, traffic.Reset)
	ended(even, "s1", 1600, 2000, traffic.Own)
	tally.Add(traffic.Event{Kind: traffic.Request, User: even, Start: msAt(1900), End: msAt(2100)})
	tally.Add(traffic.Event{Kind: traffic.Request, User: even, Start: msAt(900), End: msAt(2100)})
	failed, c, broken := tally.Between(msAt(1000), msAt(3200))
	if len(failed) != 1 || c.LostWithServer != 2 || c.Reset != 1 || c.Broken != 4 || len(broken) != 4 {
		t.Errorf("%d failed, %+v, broken %+v", len(failed), c, broken)
	}
	answered := func(user netip.Addr, server string, start, end int) {
		tally.Add(traffic.Event{Kind: traffic.Request, User: user, Server: server, OK: true, Start: msAt(start), End: msAt(end)})
	}
	answered(even, "s2", 1200, 1300)
	answered(even, "s3", 1200, 1300) // a stranger
	answered(odd, "s3", 1200, 1300)  // its owner is not dead
	answered(even, "s2", 3100, 3200) // the owner is back
	wrong := tally.Strangers()
	if len(wrong) != 3 {
		t.Fatalf("strangers %+v", wrong)
	}
	if tally.StoodBy(wrong[0]) || !tally.StoodBy(wrong[1]) || !tally.StoodBy(wrong[2]) {
		t.Error("who stood by for whom")
	}
	if got := tally.Timeline.Tell(even, msAt(1200), msAt(1300)); !strings.HasSuffix(got, "in epoch 1.1 s1's, s2 standing by") {
		t.Errorf("in words: %q", got)
	}
	if !tally.Answered(odd, msAt(1100)) || tally.Answered(odd, msAt(1250)) || tally.Answered(netip.MustParseAddr("10.1.0.99"), msAt(0)) {
		t.Error("who was answered since when")
	}
}
