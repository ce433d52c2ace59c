// Package child keeps the process that speaks BGP running, over its crashes and over this process's own.
package child

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/peercred"
)

// How soon a process that ended is started anew: at once, and later each time that it does not last.
const (
	againAfter = 50 * time.Millisecond
	againMost  = 5 * time.Second
	lasts      = 10 * time.Second
)

// startWithin is how long a process may take until its socket answers.
const startWithin = 10 * time.Second

// stopWithin is how long it may take to end.
const stopWithin = 3 * time.Second

// How a process that hangs is known by: askEvery is the time between questions where Options do not say, missedMost how many in a row have no answer then.
const (
	askEvery   = 5 * time.Second
	missedMost = 3
)

// Options say what the process is.
type Options struct {
	Exe string // "": this program
	// Args are its arguments but for "--socket" and its value, which come last.
	Args []string
	// Dir is a directory of its own that a boot empties; in it are its socket, and a file that is there while neighbors may have what it told them.
	Dir string
	// Leave has it end all sessions with Cease, at a clean stop.
	Leave func(context.Context) error
	// Ask has the process do something small, and fails where that is not done in time. One that misses three answers in a row hangs, and is replaced. nil: it is not asked.
	Ask func(context.Context) error
	// Every is the time between questions, 5 s where it is 0; each has twice that to be answered.
	Every  time.Duration
	Stderr io.Writer // an *os.File, or the process ends with this one
	Log    *slog.Logger
}

// Child is the process. It has a session of its own and goes on when this process dies; the next one finds it by its socket and goes on with it.
type Child struct {
	Options
	ready     chan struct{}
	restarted atomic.Bool
	restarts  atomic.Uint64
	pid       atomic.Int64
}

// New returns a Child that is not started before Run.
func New(o Options) *Child { return &Child{Options: o, ready: make(chan struct{})} }

// Socket is where the process of a directory answers.
func Socket(dir string) string { return filepath.Join(dir, "api.sock") }

// Socket is where the process answers.
func (c *Child) Socket() string { return Socket(c.Dir) }

// spoke is the file that is there while neighbors may have what a process told them.
func (c *Child) spoke() string { return filepath.Join(c.Dir, "spoke") }

// Restarted says whether the process that runs was preceded by one whose neighbors may keep what it told.
func (c *Child) Restarted() bool { return c.restarted.Load() }

// Restarts counts processes that ended by themselves.
func (c *Child) Restarts() uint64 { return c.restarts.Load() }

// PID is the process that answers; 0: none.
func (c *Child) PID() int { return int(c.pid.Load()) }

// String implements daemon.Task.
func (c *Child) String() string { return "BGP speaker" }

// Ready implements daemon.Task: closed when the socket answered for the first time.
func (c *Child) Ready() <-chan struct{} { return c.ready }

// Run keeps the process running until ctx ends. Then it leaves for good, with Cease, unless the daemon is restarted: then it goes on, and so do its sessions.
func (c *Child) Run(ctx context.Context) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("directory of the BGP speaker: %w", err)
	}
	delay := againAfter
	for first := true; ctx.Err() == nil; first = false {
		begun := time.Now()
		p, err := c.find(first)
		if p == nil && err == nil {
			p, err = c.start()
		}
		if err == nil {
			err = c.accompany(ctx, p)
		}
		if ctx.Err() != nil {
			return c.end(ctx, p)
		}
		c.restarts.Add(1)
		if time.Since(begun) >= lasts {
			delay = againAfter
		}
		c.Log.Error("the BGP speaker has ended, and is started again", "err", err, "after", delay)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		delay = min(2*delay, againMost)
	}
	return nil
}

// find gives the process that an earlier one of this program has left, if it is of the same release; another one is ended, and its neighbors wait for the next.
func (c *Child) find(first bool) (*process, error) {
	if !first {
		return nil, nil
	}
	pid, err := peercred.Listener(c.Socket())
	if err != nil {
		return nil, nil //nolint:nilerr // nobody is there
	}
	p, err := processOf(pid)
	if err != nil {
		return nil, fmt.Errorf("the BGP speaker that runs: %w", err)
	}
	exe := c.exe()
	if sameFile(exe, fmt.Sprintf("/proc/%d/exe", pid)) {
		c.Log.Info("goes on with the BGP speaker that runs", "pid", pid)
		return p, nil
	}
	c.Log.Info("the BGP speaker that runs is of another release: it is replaced", "pid", pid)
	return nil, p.stop()
}

func (c *Child) exe() string {
	if c.Exe != "" {
		return c.Exe
	}
	return "/proc/self/exe"
}

func sameFile(a, b string) bool {
	sa, errA := os.Stat(a)
	sb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(sa, sb)
}

// start starts a process.
func (c *Child) start() (*process, error) {
	_, err := os.Stat(c.spoke())
	c.restarted.Store(err == nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("whether a BGP speaker ran here: %w", err)
	}
	if err := os.WriteFile(c.spoke(), nil, 0o600); err != nil {
		return nil, fmt.Errorf("note that a BGP speaker runs here: %w", err)
	}
	cmd := exec.Command(c.exe(), append(append([]string{}, c.Args...), "--socket", c.Socket())...)
	cmd.Stderr = c.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the BGP speaker: %w", err)
	}
	p := &process{pid: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// accompany waits for the end of the process, or of ctx.
func (c *Child) accompany(ctx context.Context, p *process) error {
	late := time.NewTimer(startWithin)
	defer late.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for up := false; !up; {
		if pid, err := peercred.Listener(c.Socket()); err == nil && pid == p.pid {
			up = true
			continue
		}
		select {
		case <-p.done:
			return p.err
		case <-ctx.Done():
			return nil
		case <-late.C:
			return errors.Join(fmt.Errorf("it has not answered at %s for %v", c.Socket(), startWithin), p.stop())
		case <-tick.C:
		}
	}
	c.pid.Store(int64(p.pid))
	defer c.pid.Store(0)
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
	hangs := c.watch(ctx, p.done)
	switch {
	case ctx.Err() != nil:
		return nil
	case hangs != nil:
		return errors.Join(hangs, p.stop())
	}
	return p.err
}

// watch asks the process again and again, until it or ctx ends. An error says that it hangs: its sessions are dead or will be, and it does not end by itself.
func (c *Child) watch(ctx context.Context, done <-chan struct{}) error {
	var due <-chan time.Time
	every := cmp.Or(c.Every, askEvery)
	if c.Ask != nil {
		tick := time.NewTicker(every)
		defer tick.Stop()
		due = tick.C
	}
	for missed := 0; ; {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return nil
		case <-due:
		}
		err := c.ask(ctx, done, 2*every)
		if err == nil {
			missed = 0
			continue
		}
		if missed++; missed == missedMost {
			return fmt.Errorf("it hangs: %d questions in a row without an answer: %w", missed, err)
		}
	}
}

// ask asks once, and no longer than the process is there.
func (c *Child) ask(ctx context.Context, done <-chan struct{}, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- c.Ask(ctx) }()
	select {
	case err := <-answer:
		return err
	case <-done:
		return nil
	}
}

// end ends the process, or leaves it to the next one of this program.
func (c *Child) end(ctx context.Context, p *process) error {
	if p == nil || daemon.Keeps(ctx) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	left := c.Leave(ctx)
	if left != nil {
		c.Log.Error("neighbors may not have heard that this router leaves, and go on with what it told for the restart time", "err", left)
	}
	if err := p.stop(); err != nil || left != nil {
		return err
	}
	return os.Remove(c.spoke())
}

// Remove ends a process that an earlier configuration has left in dir, and forgets it.
func Remove(dir string) error {
	c := New(Options{Dir: dir})
	if pid, err := peercred.Listener(c.Socket()); err == nil {
		p, err := processOf(pid)
		if err == nil {
			err = p.stop()
		}
		if err != nil {
			return fmt.Errorf("the BGP speaker that runs without being wanted: %w", err)
		}
	}
	if err := os.Remove(c.spoke()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
