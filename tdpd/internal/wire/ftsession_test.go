package wire

import (
	"testing"
	"time"
)

func TestGracefulRestart(t *testing.T) {
	for s, want := range map[FTSession]bool{
		{LearnFromNetwork: true}:                  true,
		{LearnFromNetwork: true, Reconnect: true}: true,
		{}:                false,
		{SaveState: true}: false,
		{LearnFromNetwork: true, SaveState: true}:          false,
		{LearnFromNetwork: true, CheckPointing: true}:      false,
		{LearnFromNetwork: true, AllLabelProtection: true}: false,
	} {
		if got := s.GracefulRestart(); got != want {
			t.Errorf("%+v: %v, want %v", s, got, want)
		}
	}
}

func TestMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		-time.Second: 0, 999 * time.Microsecond: 0, time.Millisecond: 1, 1999 * time.Microsecond: 1, 1200 * time.Hour: 0xffffffff,
	} {
		if got := milliseconds(d); got != want {
			t.Errorf("%v: %d, want %d", d, got, want)
		}
	}
}
