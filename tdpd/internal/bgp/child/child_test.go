package child

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// TestMain: with "speak --socket PATH" the test binary is a process that listens there, and greets, until SIGTERM; with "die" before, it ends at once.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "speak":
		_ = os.Remove(os.Args[3])
		l, err := net.Listen("unix", os.Args[3])
		if err != nil {
			os.Exit(1)
		}
		go greet(l)
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		<-ctx.Done()
	case len(os.Args) > 1 && os.Args[1] == "die":
		os.Exit(3)
	default:
		os.Exit(m.Run())
	}
}

// greet says a word to whoever comes.
func greet(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte{'!'})
		conn.Close()
	}
}

// greeted asks for that word.
func greeted(ctx context.Context, socket string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	if err := conn.SetDeadline(end); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// A run is a Child at work.
type run struct {
	*Child
	left  int
	end   context.CancelCauseFunc
	ended chan error
}

func start(t *testing.T, dir string, args ...string) *run {
	t.Helper()
	r := &run{ended: make(chan error, 1)}
	r.Child = New(Options{
		Args: args, Dir: dir, Log: slog.New(slog.DiscardHandler),
		Leave: func(context.Context) error { r.left++; return nil },
	})
	var ctx context.Context
	ctx, r.end = context.WithCancelCause(context.Background())
	go func() { r.ended <- r.Run(ctx) }()
	t.Cleanup(func() { r.end(nil); <-r.ended })
	return r
}

// stop ends the daemon: cleanly, or for a restart.
func (r *run) stop(t *testing.T, keep bool) {
	t.Helper()
	var cause error
	if keep {
		cause = errors.New("the daemon is restarted")
	}
	r.end(cause)
	err := <-r.ended
	r.ended <- nil
	if err != nil {
		t.Error(err)
	}
}

func (r *run) await(t *testing.T) int {
	t.Helper()
	select {
	case <-r.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the process does not answer")
	}
	testnet.Eventually(t, 20*time.Second, func() bool { return r.PID() != 0 }, "a process")
	return r.PID()
}

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }

// TestLife: the first process has nothing to go on with, one after a kill has; a restart of the daemon leaves it to the next one, a clean stop does not.
func TestLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "speaker")
	r := start(t, dir, "speak")
	first := r.await(t)
	if r.Restarted() {
		t.Error("the first one has restarted")
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	_ = unix.Kill(first, unix.SIGKILL)
	testnet.Eventually(t, 20*time.Second, func() bool { pid := r.PID(); return pid != 0 && pid != first }, "another process")
	second := r.PID()
	if !r.Restarted() || r.Restarts() != 1 {
		t.Errorf("restarted %v, %d times", r.Restarted(), r.Restarts())
	}
	r.stop(t, true)
	if !alive(second) || r.left != 0 {
		t.Fatal("the process has not outlived the restart of the daemon")
	}

	r = start(t, dir, "speak")
	if pid := r.await(t); pid != second || r.Restarted() {
		t.Errorf("process %d, was %d", pid, second)
	}
	_ = unix.Kill(second, unix.SIGKILL) // one that is not a child of this run's ends as well
	testnet.Eventually(t, 20*time.Second, func() bool { pid := r.PID(); return pid != 0 && pid != second }, "another process")
	third := r.PID()
	r.stop(t, false)
	if r.left != 1 {
		t.Error("it did not leave")
	}
	testnet.Eventually(t, 20*time.Second, func() bool { return !alive(third) }, "the end of the process")

	r = start(t, dir, "speak")
	r.await(t)
	if r.Restarted() {
		t.Error("restarted after a clean stop")
	}
}

// TestOtherRelease: a process of another program is replaced, and what it told is to be kept.
func TestOtherRelease(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "speaker")
	r := start(t, dir, "speak")
	old := r.await(t)
	r.stop(t, true)
	exe := filepath.Join(t.TempDir(), "copy")
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(exe, self, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	next := &run{ended: make(chan error, 1)}
	next.Child = New(Options{Exe: exe, Args: []string{"speak"}, Dir: dir, Log: slog.New(slog.DiscardHandler), Leave: func(context.Context) error { return nil }})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { next.ended <- next.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-next.ended })
	if pid := next.await(t); pid == old || !next.Restarted() || alive(old) {
		t.Errorf("process %d, before %d, restarted %v", pid, old, next.Restarted())
	}
}

// TestLeft: a process that nobody wants any more goes.
func TestLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "speaker")
	r := start(t, dir, "speak")
	pid := r.await(t)
	r.stop(t, true)
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 20*time.Second, func() bool { return !alive(pid) }, "its end")
	if err := Remove(dir); err != nil {
		t.Errorf("nothing is there: %v", err)
	}
}

// TestDies: a process that ends again and again is started less and less often, and the daemon can end meanwhile.
func TestDies(t *testing.T) {
	r := start(t, filepath.Join(t.TempDir(), "speaker"), "die")
	testnet.Eventually(t, 20*time.Second, func() bool { return r.Restarts() >= 3 }, "three ends")
	if n := r.Restarts(); n > 20 {
		t.Errorf("%d ends", n)
	}
	r.stop(t, false)
}
