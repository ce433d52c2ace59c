package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// machine is a kernel to boot.
type machine struct {
	name string
	// command boots it. The channel from the guest is the command's descriptor 3, its console standard output.
	command *exec.Cmd
}

// session is one run of a machine.
type session struct {
	machine        machine
	stdout, stderr io.Writer
	live           bool // the console goes to stderr, too
}

// startedLine is what the guest writes to the console before it does anything else.
const startedLine = "vmtest: started"

// errNotStarted says that the machine ended before it ran anything of ours.
var errNotStarted = errors.New("the kernel ended before it had started")

// grace is how long a machine that has told its command's end may take to power off, and a channel to run dry.
const grace = 3 * time.Second

// run returns how the command ended, or what was wrong with the machine.
func (s session) run(ctx context.Context) (end, error) {
	console := &tail{}
	e, err := s.boot(ctx, console)
	if err == nil && e.Error != "" {
		err = errors.New(e.Error)
	}
	return e, s.explain(err, console)
}

func (s session) boot(ctx context.Context, console *tail) (e end, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return e, err
	}
	defer r.Close()
	cmd := s.machine.command
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stdout = console
	if s.live {
		cmd.Stdout = io.MultiWriter(console, s.stderr)
	}
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = grace
	err = cmd.Start()
	w.Close()
	if err != nil {
		return e, err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // what counts is what the guest said
		close(exited)
	}()
	defer func() {
		kill(cmd)
		<-exited
	}()
	told := make(chan error, 1)
	go func() {
		var err error
		e, err = readFrames(r, s.stdout, s.stderr)
		told <- err
	}()
	select {
	case err := <-told:
		wait(exited, grace)
		return e, err
	case <-ctx.Done():
		return end{}, context.Cause(ctx)
	case <-exited:
	}
	select { // what it said last is still on the way
	case err := <-told:
		return e, err
	case <-time.After(grace):
		return end{}, io.EOF
	}
}

func wait(done <-chan struct{}, d time.Duration) {
	select {
	case <-done:
	case <-time.After(d):
	}
}

// explain adds the console to what went wrong.
func (s session) explain(err error, console *tail) error {
	switch {
	case err == nil:
		return nil
	case errors.As(err, &interrupted{}):
		return err
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
	case console.hasStarted():
		err = errors.New("the kernel ended before the command did")
	default:
		err = errNotStarted
	}
	if lines := console.last(consoleLines); len(lines) > 0 && !s.live {
		return fmt.Errorf("%s: %w; the end of its console:\n%s", s.machine.name, err, lines)
	}
	return fmt.Errorf("%s: %w", s.machine.name, err)
}

const (
	consoleLines = 60 // a panic begins before the trace of its stack
	consoleBytes = 64 << 10
)

// tail keeps the end of what is written to it.
type tail struct {
	mu      sync.Mutex
	buf     []byte
	started bool // startedLine was in it
}

func (t *tail) hasStarted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.started
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.started = t.started || bytes.Contains(t.buf, []byte(startedLine))
	if over := len(t.buf) - consoleBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// last returns up to n lines, as they are.
func (t *tail) last(n int) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := bytes.TrimSpace(bytes.ReplaceAll(t.buf, []byte("\r"), nil))
	for i := len(text) - 1; i >= 0; i-- {
		if text[i] != '\n' {
			continue
		}
		if n--; n == 0 {
			return bytes.Clone(text[i+1:])
		}
	}
	return bytes.Clone(text)
}
