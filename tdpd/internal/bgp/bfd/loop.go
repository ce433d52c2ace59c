package bfd

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/daemon"
)

// How often the keeper is asked: twice in the least interval of a session, within these.
const (
	askLeast = 10 * time.Millisecond
	askMost  = 100 * time.Millisecond
)

// askAgain is when a keeper is asked again that has not answered, and how long it may take.
const askAgain = time.Second

// leaveWithin is how long it may take to forget what is ours.
const leaveWithin = 2 * time.Second

// Neighbor is a session and BGP's hold time.
type Neighbor struct {
	Session
	Hold time.Duration
}

// Loop has a keeper keep sessions, and tells which neighbors are out. It is a daemon's task.
type Loop struct {
	keeper Keeper
	all    []Session
	watch  *Watch
	out    chan []netip.Addr
	log    *slog.Logger

	wait   time.Duration
	told   bool // the keeper has taken all
	silent bool // the keeper has not answered, which was logged
}

// NewLoop returns one that does nothing before Run.
func NewLoop(k Keeper, neighbors []Neighbor, log *slog.Logger) *Loop {
	l := &Loop{keeper: k, out: make(chan []netip.Addr), log: log, wait: askMost}
	hold := map[netip.Addr]time.Duration{}
	for _, n := range neighbors {
		l.all, hold[n.Peer] = append(l.all, n.Session), n.Hold
		l.wait = max(min(l.wait, n.Receive/2), askLeast)
	}
	l.watch = NewWatch(hold)
	return l
}

// Out are the neighbors that are out, each time that they are others. Who reads them late gets the latest.
func (l *Loop) Out() <-chan []netip.Addr { return l.out }

// Run works until ctx ends. Then the keeper has nothing of ours any more, unless the daemon is restarted.
func (l *Loop) Run(ctx context.Context) error {
	defer func() {
		if !daemon.Keeps(ctx) {
			l.leave(context.WithoutCancel(ctx))
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var news chan<- []netip.Addr
	for {
		select {
		case <-ctx.Done():
			return nil
		case news <- l.watch.Out():
			news = nil
			continue
		case <-timer.C:
		}
		states, err := l.ask(ctx)
		l.tell(ctx, err)
		before := l.watch.Out()
		if l.watch.Take(time.Now(), states) {
			l.say(before, l.watch.Out())
			news = l.out
		}
		if err != nil {
			timer.Reset(askAgain)
		} else {
			timer.Reset(l.wait)
		}
	}
}

// ask asks how sessions are, and has those kept that are missing: the keeper may have restarted.
func (l *Loop) ask(ctx context.Context) (map[netip.Addr]State, error) {
	ctx, cancel := context.WithTimeout(ctx, askAgain)
	defer cancel()
	states, err := l.keeper.States(ctx)
	if err != nil {
		return nil, err
	}
	if l.told && !slices.ContainsFunc(l.all, func(s Session) bool { return states[s.Peer] == 0 }) {
		return states, nil
	}
	err = l.keeper.Apply(ctx, l.all)
	l.told = err == nil
	return states, err
}

// tell logs that the keeper does not answer, and that it does again, once.
func (l *Loop) tell(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil || (err != nil) == l.silent:
		return
	case err != nil:
		l.log.Warn("BFD: a neighbor that dies is found by BGP's hold time alone, trying again", "err", err, "after", askAgain)
	default:
		l.log.Info("BFD: neighbors are watched again")
	}
	l.silent = err != nil
}

func (l *Loop) say(before, now []netip.Addr) {
	for _, a := range now {
		if !slices.Contains(before, a) {
			l.log.Warn("BFD: the neighbor is gone", "neighbor", a)
		}
	}
	for _, a := range before {
		if !slices.Contains(now, a) {
			l.log.Info("BFD: the neighbor is back, or BGP is to try without", "neighbor", a)
		}
	}
}

func (l *Loop) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	if err := l.keeper.Apply(ctx, nil); err != nil {
		l.log.Warn("BFD: sessions of this router are still kept", "err", fmt.Errorf("take them back: %w", err))
	}
}
