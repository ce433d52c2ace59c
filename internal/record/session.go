package record

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // routers have no zone files
)

// Session is a weekly window, by the wall clock of its zone. A window that ends at or before its start runs past midnight and
// belongs to the day on which it starts.
type Session struct {
	Days     [7]bool // by time.Weekday: day on which the window starts
	From     int     // minutes since midnight, 0..1439
	To       int     // minutes since midnight, 1..1440, exclusive
	Location *time.Location
}

// Sessions are a group's windows; none at all means at any time.
type Sessions []Session

var week = [7]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"} // by time.Weekday

// ParseSessions reads windows separated by commas: "Mon-Fri 08:00-18:00 UTC, Sat+Sun 22:00-02:00 Europe/Vienna".
func ParseSessions(text string) (Sessions, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var out Sessions
	for part := range strings.SplitSeq(text, ",") {
		s, err := parseSession(part)
		if err != nil {
			return nil, err
		}
		if len(out) == SessionsMax {
			return nil, fmt.Errorf("more than %d sessions", SessionsMax)
		}
		out = append(out, s)
	}
	return out, nil
}

func parseSession(text string) (Session, error) {
	var s Session
	fail := func(err error) (Session, error) {
		return Session{}, fmt.Errorf("session %.80q: %w (like \"Mon-Fri 08:00-18:00 UTC\")", text, err)
	}
	f := strings.Fields(text)
	if len(f) != 3 {
		return fail(errors.New("want days, hours and a zone"))
	}
	if err := s.parseDays(f[0]); err != nil {
		return fail(err)
	}
	from, to, ok := strings.Cut(f[1], "-")
	if !ok {
		return fail(errors.New("want hours as HH:MM-HH:MM"))
	}
	var err error
	if s.From, err = minutes(from); err != nil {
		return fail(err)
	}
	if s.To, err = minutes(to); err != nil {
		return fail(err)
	}
	if s.From == s.To || s.From == 1440 || s.To == 0 {
		return fail(errors.New("the whole day is 00:00-24:00; an end at midnight is 24:00"))
	}
	if s.Location, err = zone(f[2]); err != nil {
		return fail(err)
	}
	return s, nil
}

func (s *Session) parseDays(text string) error {
	for part := range strings.SplitSeq(text, "+") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		d, err := weekday(first)
		if err != nil {
			return err
		}
		end, err := weekday(last)
		if err != nil {
			return err
		}
		for ; d != end; d = (d + 1) % 7 {
			s.Days[d] = true
		}
		s.Days[end] = true
	}
	return nil
}

func weekday(text string) (int, error) {
	for d, name := range week {
		if strings.EqualFold(text, name) {
			return d, nil
		}
	}
	return 0, fmt.Errorf("no day %.10q", text)
}

func minutes(text string) (int, error) {
	if text == "24:00" {
		return 1440, nil
	}
	t, err := time.Parse("15:04", text)
	if err != nil || len(text) != 5 {
		return 0, fmt.Errorf("no time of day %.10q, want HH:MM", text)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// zone loads an IANA zone. "Local" would mean something else on every machine.
func zone(name string) (*time.Location, error) {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_+-"
	if name == "Local" || len(name) > 64 || strings.Trim(name, letters) != "" {
		return nil, fmt.Errorf("no zone %.64q", name)
	}
	if name == "UTC" {
		return time.UTC, nil
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("no zone %q", name)
	}
	return loc, nil
}

// Contains says whether t lies in one of the windows.
func (ss Sessions) Contains(t time.Time) bool {
	for _, s := range ss {
		if s.contains(t) {
			return true
		}
	}
	return len(ss) == 0
}

func (s Session) contains(t time.Time) bool {
	local := t.In(s.Location)
	today, now := local.Weekday(), local.Hour()*60+local.Minute()
	if s.From < s.To {
		return s.Days[today] && now >= s.From && now < s.To
	}
	yesterday := (today + 6) % 7
	return s.Days[today] && now >= s.From || s.Days[yesterday] && now < s.To
}

// String is the form that ParseSessions reads.
func (ss Sessions) String() string {
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = s.String()
	}
	return strings.Join(out, ", ")
}

// String has one form for each window: days from Monday, in runs.
func (s Session) String() string {
	var runs []string
	for i := 0; i < 7; i++ {
		if !s.Days[(i+1)%7] {
			continue
		}
		first := i
		for i < 6 && s.Days[(i+2)%7] {
			i++
		}
		run := week[(first+1)%7]
		if i > first {
			run += "-" + week[(i+1)%7]
		}
		runs = append(runs, run)
	}
	return fmt.Sprintf("%s %02d:%02d-%02d:%02d %s", strings.Join(runs, "+"), s.From/60, s.From%60, s.To/60, s.To%60, s.Location)
}
