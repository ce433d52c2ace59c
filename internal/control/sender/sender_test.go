package sender_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/controltest"
	"github.com/manycast/manycast/internal/control/sender"
	"github.com/manycast/manycast/internal/control/wire"
	controlv1 "github.com/manycast/manycast/proto/control/v1"
)

var begin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// said is one frame that went out.
type said struct {
	at     time.Time
	frame  wire.Frame
	report *controlv1.Report // of the first sending of a report that fits in one frame
}

func newSender(t *testing.T) *sender.Sender {
	id := controltest.Identity("s1", control.Server, false, netip.MustParseAddr("10.0.0.1"), begin)
	s, err := sender.New(sender.Config{Identity: id, Group: controltest.Group, Boot: 1, Started: begin, Random: controltest.Random(1)})
	if err != nil {
		t.Fatal(err)
	}
	s.SetKey(controltest.Key(1))
	return s
}

func run(t *testing.T, s *sender.Sender, from, to time.Time) (out []said) {
	t.Helper()
	seen := map[uint64]bool{}
	for now := from; now.Before(to); {
		frames, _, err := s.Tick(now, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range frames {
			f, err := wire.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			x := said{at: now, frame: f}
			if m, err := wire.ParseMessage(f.Bytes); f.Type == wire.Part && f.Parts == 1 && err == nil && m.Kind == control.KindReport && !seen[f.Sequence] {
				seen[f.Sequence] = true
				x.report = &controlv1.Report{}
				if err := proto.Unmarshal(m.Body, x.report); err != nil {
					t.Fatal(err)
				}
			}
			out = append(out, x)
		}
		now = s.Next()
	}
	return out
}

func count(all []said, what func(said) bool) (n int) {
	for _, x := range all {
		if what(x) {
			n++
		}
	}
	return n
}

func heartbeat(x said) bool { return x.frame.Type == wire.Heartbeat }
func report(x said) bool    { return x.report != nil }

func TestPace(t *testing.T) {
	s := newSender(t)
	first := run(t, s, begin, begin.Add(time.Second))
	if beats, reports := count(first, heartbeat), count(first, report); beats != 20 || reports != 10 {
		t.Errorf("first second: %d heartbeats, %d reports", beats, reports)
	}
	rest := run(t, s, begin.Add(time.Second), begin.Add(11*time.Second))
	if beats, reports := count(rest, heartbeat), count(rest, report); beats != 200 || reports < 10 || reports > 11 {
		t.Errorf("ten seconds: %d heartbeats, %d reports", beats, reports)
	}
	stalled := begin.Add(20 * time.Second)
	if n := count(run(t, s, stalled, stalled.Add(100*time.Millisecond)), heartbeat); n > 3 {
		t.Errorf("%d heartbeats in 100 ms after a stall", n)
	}
}

func TestChangeIsSaidAtOnce(t *testing.T) {
	s := newSender(t)
	now := begin.Add(5*time.Second + 210*time.Millisecond)
	run(t, s, begin, now)
	s.SetStatus(now, control.Status{Why: "no answer"})
	frames := run(t, s, now, now.Add(100*time.Millisecond))
	if len(frames) == 0 || !frames[0].at.Equal(now) || !report(frames[0]) || frames[0].report.GetHealth() != controlv1.Health_HEALTH_UNWELL {
		t.Fatalf("%+v", frames)
	}
	again := count(frames, func(x said) bool { return x.frame.Type == wire.Part && x.frame.Sequence == frames[0].frame.Sequence })
	if again != 2 {
		t.Errorf("sent %d times", again)
	}
}

func TestMet(t *testing.T) {
	s := newSender(t)
	now := begin.Add(5*time.Second + 210*time.Millisecond)
	run(t, s, begin, now)
	for range 100 { // a hundred new ones at once get one report
		s.Met(now, 0.5)
	}
	frames := run(t, s, now, now.Add(400*time.Millisecond))
	if n := count(frames, report); n != 1 {
		t.Errorf("%d reports", n)
	}
	for _, x := range frames {
		if after := x.at.Sub(now); report(x) && (after < 50*time.Millisecond || after > 150*time.Millisecond) {
			t.Errorf("after %v", after)
		}
	}
}

func TestLongMessageIsPaced(t *testing.T) {
	s := newSender(t)
	run(t, s, begin, begin.Add(2*time.Second))
	now := begin.Add(2 * time.Second)
	if err := s.Message(now, control.KindAnnounce, make([]byte, 500_000)); err != nil {
		t.Fatal(err)
	}
	frames := run(t, s, now, now.Add(200*time.Millisecond))
	at := map[time.Time]int{}
	parts := 0
	for _, x := range frames {
		at[x.at]++
		if x.frame.Parts > 1 {
			parts++
		}
	}
	for when, n := range at {
		if n > 70 {
			t.Errorf("%d frames at once at %v", n, when)
		}
	}
	if want := 2 * ((500_000+65)/(sender.DefaultFrameMax-wire.Overhead) + 1); parts != want {
		t.Errorf("%d parts, want %d", parts, want)
	}
}

func TestBoundsOfTheQueue(t *testing.T) {
	s := newSender(t)
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = s.Message(begin, control.KindAnnounce, make([]byte, 1_000_000))
	}
	if !errors.Is(err, sender.ErrFull) || n > 20 {
		t.Errorf("after %d messages: %v", n, err)
	}
	run(t, s, begin, begin.Add(2*time.Second))
	if err := s.Message(begin.Add(2*time.Second), control.KindAnnounce, make([]byte, 1_000_000)); err != nil {
		t.Errorf("when all was sent: %v", err)
	}
	s.SetKey(nil)
	if err := s.Message(begin, control.KindDone, nil); !errors.Is(err, sender.ErrNoKey) {
		t.Errorf("without a key: %v", err)
	}
}
