package damping

import (
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestEachFailureDoublesTheTimeOut(t *testing.T) {
	d, now := Damper{First: 5 * time.Second, Max: 5 * time.Minute, Forget: 10 * time.Minute}, start
	for i, want := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300} {
		if got := d.Fail(now).Sub(now); got != want*time.Second {
			t.Errorf("failure %d: out for %v, want %v s", i+1, got, int(want))
		}
		now = d.Until(now)
		if !d.Until(now).IsZero() {
			t.Errorf("failure %d: out at the end of its time", i+1)
		}
	}
}

func TestFailuresAreForgottenOneByOne(t *testing.T) {
	d := Damper{First: 5 * time.Second, Max: 5 * time.Minute, Forget: 10 * time.Minute}
	for range 3 {
		d.Fail(start)
	}
	for minutes, want := range map[time.Duration]int{9: 3, 10: 2, 29: 1, 30: 0, 300: 0} {
		again := d
		if got := again.Count(start.Add(minutes * time.Minute)); got != want {
			t.Errorf("after %d minutes %d failures are remembered, want %d", minutes, got, want)
		}
	}
	later := start.Add(25 * time.Minute)
	if got := d.Fail(later).Sub(later); got != 10*time.Second {
		t.Errorf("out for %v, want 10s: one failure was left", got)
	}
}

func TestManyFailuresDoNotOverflow(t *testing.T) {
	d := Damper{First: 5 * time.Second, Max: 5 * time.Minute, Forget: time.Hour}
	for range 1000 {
		if got := d.Fail(start).Sub(start); got < 5*time.Second || got > 5*time.Minute {
			t.Fatalf("out for %v", got)
		}
	}
}
