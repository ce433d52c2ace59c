package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/lab"
)

// helper is a program that runs in a node beside the scenario and writes JSON objects.
type helper struct {
	name   string
	cmd    *exec.Cmd
	stderr tail
	done   chan struct{}
	err    error
}

// startHelper starts a program; each object that it writes is decoded into a new T and handed to take, in order.
func startHelper[T any](l *lab.Lab, node string, take func(T), argv ...string) (*helper, error) {
	h := &helper{name: strings.Join(argv[:min(3, len(argv))], " "), done: make(chan struct{})}
	h.cmd = l.Command(context.Background(), node, argv...)
	h.cmd.Stderr = &h.stderr
	out, err := h.cmd.StdoutPipe()
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w", h.name, node, err)
	}
	go func() {
		defer close(h.done)
		h.err = errors.Join(decode(out, take), h.cmd.Wait())
	}()
	return h, nil
}

func decode[T any](r io.Reader, take func(T)) error {
	for dec := json.NewDecoder(r); ; {
		var v T
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("what it wrote: %w", err)
		}
		take(v)
	}
}

// stop asks the program to end and waits for it and for its last words.
func (h *helper) stop() error {
	if h == nil {
		return nil
	}
	if err := h.cmd.Process.Signal(unix.SIGINT); err != nil && !h.ended() {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	select {
	case <-h.done:
	case <-time.After(10 * time.Second):
		return errors.Join(fmt.Errorf("%s did not end within 10 s", h.name), h.cmd.Process.Kill())
	}
	if h.err != nil {
		return fmt.Errorf("%s: %w: %s", h.name, h.err, h.stderr.String())
	}
	return nil
}

func (h *helper) ended() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.buf = t.buf[max(0, len(t.buf)-4096):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}
