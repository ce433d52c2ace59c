package joiner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/igmp"
)

// Loop runs a Joiner on a Socket; a daemon's task. It owns both.
type Loop struct {
	joiner *Joiner
	socket Socket
	log    *slog.Logger
	keep   bool

	sets   chan setRequest
	ready  chan struct{}
	turn   chan struct{}
	ended  chan struct{}
	groups []netip.Addr // of the socket
	timer  *time.Timer
	failed string // the last error logged, so that one that stays is logged once
}

type setRequest struct {
	want  []Membership
	reply chan error
}

// NewLoop returns a Loop that has yet to run. When it is stopped it leaves its groups, unless keep is set.
func NewLoop(j *Joiner, socket Socket, keep bool, log *slog.Logger) *Loop {
	return &Loop{
		joiner: j, socket: socket, log: log, keep: keep,
		sets: make(chan setRequest), ready: make(chan struct{}), turn: make(chan struct{}), ended: make(chan struct{}),
	}
}

// String names the task.
func (l *Loop) String() string { return "joiner" }

// Ready is closed once Set is heard.
func (l *Loop) Ready() <-chan struct{} { return l.ready }

// Turns is the loop's.
func (l *Loop) Turns() []chan<- struct{} { return []chan<- struct{}{l.turn} }

// Set makes want the memberships (see Joiner.Set) and returns when what that makes due is sent. Run has to be running, or to
// come. An error of sending is logged and the report is sent again in time, so it is no error here.
func (l *Loop) Set(ctx context.Context, want []Membership) error {
	r := setRequest{want: want, reply: make(chan error, 1)}
	select {
	case l.sets <- r:
		return <-r.reply
	case <-l.ended:
		return errors.New("joiner: has ended")
	case <-ctx.Done():
		return fmt.Errorf("set memberships: %w", ctx.Err())
	}
}

// Run serves until ctx is done, or the link is gone (ErrLinkGone), then leaves the groups and closes the socket.
func (l *Loop) Run(ctx context.Context) error {
	defer close(l.ended)
	queries, failed := make(chan igmp.Query), make(chan error, 1)
	go l.read(queries, failed)
	l.timer = time.NewTimer(time.Hour)
	defer l.timer.Stop()
	close(l.ready)
	for {
		select {
		case r := <-l.sets:
			err := l.joiner.Set(time.Now(), r.want)
			l.step()
			r.reply <- err
		case q := <-queries:
			if err := l.joiner.Query(time.Now(), q); err != nil {
				l.log.Warn("query not answered", "err", err)
			}
			l.step()
		case <-l.timer.C:
			l.step()
		case err := <-failed:
			return errors.Join(err, l.stop(l.keep))
		case <-l.turn:
		case <-ctx.Done():
			return l.stop(l.keep || daemon.Keeps(ctx))
		}
	}
}

// step sends what is due and sets the timer for the next time.
func (l *Loop) step() {
	var failed []error
	if groups := l.joiner.Groups(); !slices.Equal(groups, l.groups) {
		if err := l.socket.SetGroups(groups); err != nil {
			failed = append(failed, err)
		} else {
			l.groups = groups
		}
	}
	now := time.Now()
	reports, next, err := l.joiner.Due(now)
	if err != nil {
		failed = append(failed, err)
	}
	for _, r := range reports {
		if err := l.socket.Send(r); err != nil {
			failed = append(failed, err)
			next = l.joiner.Unsent(now)
			break // the rest would fail alike
		}
	}
	l.report(errors.Join(failed...))
	if next.IsZero() {
		l.timer.Stop()
		return
	}
	l.timer.Reset(time.Until(next))
}

func (l *Loop) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == l.failed:
	case err != nil:
		l.log.Warn("joins not sent, trying again", "err", err)
	default:
		l.log.Info("joins are sent again")
	}
	l.failed = text
}

func (l *Loop) stop(keep bool) error {
	if !keep {
		if err := l.joiner.Leave(time.Now()); err != nil {
			l.log.Warn("leave groups", "err", err)
		}
		l.step()
	}
	if err := l.socket.Close(); err != nil {
		return fmt.Errorf("close the joiner's socket: %w", err)
	}
	return nil
}

// read hands queries to Run until the socket is closed, or fails.
func (l *Loop) read(queries chan<- igmp.Query, failed chan<- error) {
	for {
		q, err := l.socket.ReadQuery()
		if err != nil {
			failed <- err // nobody listens any more when it was closed
			return
		}
		select {
		case queries <- q:
		case <-l.ended:
			return
		}
	}
}
