package child

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// TestWatch: three answers missed in a row, not three in all, are a process that hangs; one that waits for a question when it ends has ended.
func TestWatch(t *testing.T) {
	t.Parallel()
	broken := errors.New("no answer")
	silent := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, c := range map[string]struct {
		answers []func(context.Context) error // the last one again and again
		hangs   time.Duration                 // when that is known; 0: never
	}{
		"answers":          {answers: []func(context.Context) error{func(context.Context) error { return nil }}},
		"refuses":          {answers: []func(context.Context) error{func(context.Context) error { return broken }}, hangs: 15 * time.Second},
		"silent":           {answers: []func(context.Context) error{silent}, hangs: 35 * time.Second},
		"misses now, then": {answers: []func(context.Context) error{silent, silent, func(context.Context) error { return nil }, silent, silent, func(context.Context) error { return nil }}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				o := New(Options{Ask: func(ctx context.Context) error {
					answer := c.answers[min(n, len(c.answers)-1)]
					n++
					return answer(ctx)
				}})
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				begun := time.Now()
				err := o.watch(ctx, nil)
				if (err != nil) != (c.hangs > 0) || err != nil && time.Since(begun) != c.hangs {
					t.Errorf("%v after %v, %d questions", err, time.Since(begun), n)
				}
				if c.hangs == 0 && n < 100 {
					t.Errorf("asked %d times in an hour", n)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		time.AfterFunc(7*time.Second, func() { close(done) })
		begun := time.Now()
		if err := New(Options{Ask: silent}).watch(t.Context(), done); err != nil || time.Since(begun) != 7*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

// TestStopped: a process that the kernel lets run no more, whose socket still takes connections, is replaced, and its neighbors wait for the next.
func TestStopped(t *testing.T) {
	t.Parallel()
	log := &strings.Builder{}
	var answers atomic.Int64
	var r *Child
	r = New(Options{
		Args: []string{"speak"}, Dir: filepath.Join(t.TempDir(), "speaker"), Log: slog.New(slog.NewTextHandler(log, nil)), Every: 100 * time.Millisecond,
		Leave: func(context.Context) error { return nil },
		Ask: func(ctx context.Context) error {
			err := greeted(ctx, r.Socket())
			if err == nil {
				answers.Add(1)
			}
			return err
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "it hangs") {
			t.Errorf("log: %s", log)
		}
	}()
	testnet.Eventually(t, 20*time.Second, func() bool { return r.PID() != 0 }, "a process")
	first := r.PID()
	testnet.Eventually(t, 20*time.Second, func() bool { return answers.Load() >= 5 }, "answers")
	if r.PID() != first || r.Restarts() != 0 {
		t.Fatal("one that answers was replaced")
	}
	if err := unix.Kill(first, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 20*time.Second, func() bool { pid := r.PID(); return pid != 0 && pid != first }, "another process")
	if alive(first) || !r.Restarted() || r.Restarts() != 1 {
		t.Errorf("the first is there: %v; restarted %v, %d times", alive(first), r.Restarted(), r.Restarts())
	}
}
