package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// restartWithin is how long a planned restart may take before others count the server as silent.
const restartWithin = 5 * time.Second

// aliveEvery is how often the data plane hears that the agent is alive, where there is no channel.
const aliveEvery = 250 * time.Millisecond

// channel is the loop's side of the control channel.
type channel struct {
	mail   *control.Mailbox // nobody puts anything in where there is no channel
	lapsed chan struct{}    // a heartbeat left too late

	mu     sync.Mutex
	status control.Status
	ended  bool // the data plane is closed, or about to be
	failed bool // to renew

	turned atomic.Pointer[time.Time] // when the loop last did; nil: it has not begun, or has ended
}

// openChannel gives the channel its first word. Without one nothing is heard.
func (l *Loop) openChannel() {
	l.channel.mail, l.channel.lapsed = control.NewMailbox(1024), make(chan struct{}, 1)
	if l.cfg.Channel == nil {
		return
	}
	alive, err := l.cfg.Plane.Alive()
	if err != nil {
		l.cfg.Log.Warn("the data plane does not say whether it takes users: begins anew", "err", err)
	}
	l.core.Channel(l.cfg.Channel.Silence(), alive && err == nil)
	l.tellStatus(l.core.status())
}

// stayAlive tells the data plane that the agent is alive, from the first allocation applied until ctx is done. It is as far from
// the loop as the registrar is: what the leader takes for alive goes on taking packets. On a control channel Beat does that.
func (l *Loop) stayAlive(ctx context.Context) {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := l.cfg.Plane.Revive()
		if err != nil && !failed {
			l.cfg.Log.Error("users will not be taken any more", "err", err)
		}
		failed = err != nil
	}
}

// Beat tells that a heartbeat has left: the data plane may go on for as long as others will not take the server for silent. Any
// goroutine may call it at any time.
func (l *Loop) Beat() {
	c := &l.channel
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	err := l.cfg.Plane.Renew()
	if errors.Is(err, dataplane.ErrLapsed) {
		select {
		case c.lapsed <- struct{}{}:
		default:
		}
		err = nil
	}
	if err != nil && !c.failed {
		l.cfg.Log.Error("users will not be taken any more", "err", err)
	}
	c.failed = err != nil
}

// Alive says that the loop turns: one that hangs does nothing that others expect of it, so they must find it silent. Any goroutine may
// call it at any time.
func (l *Loop) Alive() bool {
	at := l.channel.turned.Load() // no lock: the channel asks under its own
	return at == nil || time.Since(*at) < l.cfg.Channel.Silence()
}

// hasTurned notes it, once there is something to go on with: a start may wait for the bus.
func (l *Loop) hasTurned() {
	if l.isReady {
		now := time.Now()
		l.channel.turned.Store(&now)
	}
}

// setLoads is what the next reports and registrations say of the server's work. Any goroutine may call it at any time.
func (l *Loop) setLoads(loads map[string]alloc.Load) {
	if l.registrar != nil {
		l.registrar.setLoads(loads)
	}
	l.channel.mu.Lock()
	defer l.channel.mu.Unlock()
	l.channel.status.Loads = loads
	if l.cfg.Channel != nil {
		l.cfg.Channel.SetStatus(l.channel.status)
	}
}

// tellStatus says how the server is, on the channel and in its registrations.
func (l *Loop) tellStatus(s *control.Status) {
	if s == nil {
		return
	}
	l.channel.mu.Lock()
	l.channel.status.OK, l.channel.status.Why = s.OK, s.Why
	l.cfg.Channel.SetStatus(l.channel.status)
	l.channel.mu.Unlock()
	if l.registrar != nil && l.core.judged {
		l.registrar.setHealthy(s.OK && l.core.healthy)
	}
}

// checkAlive finds out that the data plane has ceased by itself. Whatever was set since takes nobody: only Revive begins anew.
func (l *Loop) checkAlive() []Action {
	if l.cfg.Channel == nil || !l.core.takes() {
		return nil
	}
	if alive, err := l.cfg.Plane.Alive(); err != nil || alive {
		return nil
	}
	return l.core.Lapsed(time.Now())
}

// nextCheck is when to look at the latest whether the data plane lives: where no heartbeat leaves, nothing else would tell. The loop
// turns then, too.
func (l *Loop) nextCheck() time.Time {
	if l.cfg.Channel == nil {
		return time.Time{}
	}
	return time.Now().Add(l.cfg.Channel.Silence() / 4)
}

// heard takes what came by the channel.
func (l *Loop) heard() []Action {
	members, messages := l.channel.mail.Take()
	actions := l.core.Heard(time.Now(), members)
	takeovers, err := announce.Takeovers(messages)
	if err != nil {
		l.cfg.Log.Warn("not understood", "err", err)
	}
	for _, t := range takeovers {
		actions = append(actions, l.core.TakenOver(time.Now(), t)...)
	}
	return actions
}

func (l *Loop) tellTakeover(t Takeover) {
	if t.First {
		l.cfg.Log.Warn("serves in the stead of a silent server", "service", t.Service, "epoch", t.Epoch, "silent", t.From)
	}
	err := announce.SendTakeover(l.cfg.Channel, announce.Takeover{Service: t.Service, Epoch: t.Epoch, From: t.From})
	if err != nil {
		l.cfg.Log.Warn("takeover not told", "silent", t.From, "err", err)
	}
}

// leaveChannel is the last word: that the server will be back soon, or that others are to take what it has left.
func (l *Loop) leaveChannel(ctx context.Context) {
	if l.cfg.Channel == nil {
		return
	}
	keep := l.keeps(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if !keep {
		l.carryOut(ctx, l.core.Leave(time.Now()))
	} else if err := l.pause(); err != nil {
		l.cfg.Log.Warn("restart not told: others will take the users of this server", "err", err)
	}
	l.channel.mu.Lock()
	defer l.channel.mu.Unlock()
	l.channel.ended = true
}

// pause asks the others first: the data plane does not go on where they would take over.
func (l *Loop) pause() error {
	if !l.core.takes() {
		return nil
	}
	if err := l.cfg.Pause(restartWithin); err != nil {
		return err
	}
	return l.cfg.Plane.Pause(restartWithin)
}
