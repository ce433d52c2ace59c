package service

import (
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// TestRecoveryTime: each session says what is kept when it begins: what is left of a restart's recovery, all of it after a session that
// broke, nothing after one that was ended, and nothing at first.
func TestRecoveryTime(t *testing.T) {
	s := passive(t, nil)
	now := start
	restarts := initialization(s.Config.ID())
	restarts.FTSession = &wire.FTSession{LearnFromNetwork: true, ReconnectTimeout: time.Minute}
	begin := func() (*recorder, time.Duration) {
		c := &recorder{remote: addr("9.9.9.9")}
		s.event(now, transport.Accepted{Conn: c})
		say(s, c, restarts)
		say(s, c, wire.KeepAlive{})
		return c, c.sent[0].(wire.Initialization).FTSession.RecoveryTime
	}
	s.kernel.recovered = start.Add(s.Config.Restart.Recovery)
	greet(s, false)
	c, kept := begin()
	if kept != s.Config.Restart.Recovery {
		t.Errorf("after a restart: %v", kept)
	}
	say(s, c, wire.Notification{Status: wire.NewStatus(wire.StatusShutdown)})
	s.kernel.recovered = time.Time{}
	c, kept = begin()
	if kept != 0 {
		t.Errorf("after an end that was told: %v", kept)
	}
	s.event(start, transport.Closed{Conn: c})
	if _, kept = begin(); kept != s.Config.Restart.Recovery {
		t.Errorf("after a connection that broke: %v", kept)
	}
}
