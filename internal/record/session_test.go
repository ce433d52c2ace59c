package record

import (
	"testing"
	"time"
)

func TestSessionsContain(t *testing.T) {
	at := func(text string) time.Time {
		when, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	// 2026-06-01 is a Monday.
	for _, c := range []struct {
		sessions, when string
		want           bool
	}{
		{"", "2026-06-01T00:00:00Z", true},
		{"Mon-Fri 08:00-18:00 UTC", "2026-06-01T08:00:00Z", true},
		{"Mon-Fri 08:00-18:00 UTC", "2026-06-01T07:59:59Z", false},
		{"Mon-Fri 08:00-18:00 UTC", "2026-06-01T17:59:59Z", true},
		{"Mon-Fri 08:00-18:00 UTC", "2026-06-01T18:00:00Z", false},
		{"Mon-Fri 08:00-18:00 UTC", "2026-06-06T12:00:00Z", false},
		{"Mon-Fri 08:00-18:00 UTC", "2026-06-01T20:00:00+05:00", true},
		{"Sat-Mon 00:00-24:00 UTC", "2026-06-07T23:59:59Z", true},
		{"Sat-Mon 00:00-24:00 UTC", "2026-06-02T00:00:00Z", false},
		{"Sun 22:00-02:00 UTC", "2026-06-01T01:59:00Z", true},
		{"Sun 22:00-02:00 UTC", "2026-06-07T01:00:00Z", false},
		{"Mon 22:00-02:00 UTC", "2026-06-01T01:00:00Z", false},
		{"Mon+Wed 08:00-09:00 UTC, Tue 08:00-09:00 UTC", "2026-06-02T08:30:00Z", true},
		{"Mon 08:00-09:00 Europe/Vienna", "2026-06-01T06:30:00Z", true}, // summer time
		{"Mon 08:00-09:00 Europe/Vienna", "2026-12-07T06:30:00Z", false},
		{"Mon 08:00-09:00 Europe/Vienna", "2026-12-07T07:30:00Z", true},
		{"Sun 23:00-01:00 Pacific/Auckland", "2026-06-07T11:30:00Z", true},
	} {
		if got := mustSessions(t, c.sessions).Contains(at(c.when)); got != c.want {
			t.Errorf("%q at %s: %v", c.sessions, c.when, got)
		}
	}
}

func TestSessionsText(t *testing.T) {
	for in, want := range map[string]string{
		"mon-fri 08:00-18:00 UTC":                                "Mon-Fri 08:00-18:00 UTC",
		"Sat-Mon 00:00-24:00 UTC":                                "Mon+Sat-Sun 00:00-24:00 UTC",
		"Sun 22:00-02:00 Asia/Tokyo,Mon+Tue+Fri 01:00-02:00 UTC": "Sun 22:00-02:00 Asia/Tokyo, Mon-Tue+Fri 01:00-02:00 UTC",
		"Mon-Sun 22:00-24:00 Etc/GMT+5":                          "Mon-Sun 22:00-24:00 Etc/GMT+5",
	} {
		if got := mustSessions(t, in).String(); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for _, bad := range []string{
		"Mon", "Mon 08:00-18:00", "Mon 08:00 UTC", "Mon 8:00-18:00 UTC", "Mon 08:00-08:00 UTC", "Mon 24:00-08:00 UTC", "Mon 08:00-00:00 UTC",
		"Mon 08:00-25:00 UTC", "Moon 08:00-09:00 UTC", "Mon 08:00-09:00 Local", "Mon 08:00-09:00 ../../etc/passwd", "Mon 08:00-09:00 UTC,",
		"Mon- 08:00-09:00 UTC", "Mon 08:00-09:00 Mars/Olympus",
	} {
		if ss, err := ParseSessions(bad); err == nil {
			t.Errorf("%q taken: %s", bad, ss)
		}
	}
}

func FuzzParseSessions(f *testing.F) {
	f.Add("Mon-Fri 08:00-18:00 UTC, Sat+Sun 22:00-02:00 Europe/Vienna")
	f.Fuzz(func(t *testing.T, text string) {
		ss, err := ParseSessions(text)
		if err != nil {
			return
		}
		again, err := ParseSessions(ss.String())
		if err != nil || again.String() != ss.String() {
			t.Errorf("%q: %q, %v", text, again, err)
		}
		ss.Contains(time.Unix(1780000000, 0))
	})
}
