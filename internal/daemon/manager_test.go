package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// looper turns, but not while somebody has its lock. synctest takes waiting for a channel for idle, and that for a Mutex not.
type looper struct {
	lock  sync.Locker
	ready chan struct{}
	turn  chan struct{}
	kept  bool
}

type channelLock chan struct{}

func (l channelLock) Lock()   { l <- struct{}{} }
func (l channelLock) Unlock() { <-l }

func newLooper() *looper {
	return &looper{lock: make(channelLock, 1), ready: make(chan struct{}), turn: make(chan struct{})}
}

func (l *looper) Ready() <-chan struct{}   { return l.ready }
func (l *looper) Turns() []chan<- struct{} { return []chan<- struct{}{l.turn} }
func (l *looper) String() string           { return "looper" }

func (l *looper) Run(ctx context.Context) error {
	for {
		select {
		case <-l.turn:
			l.lock.Lock() // what a turn needs
			l.lock.Unlock()
		case <-ctx.Done():
			l.kept = Keeps(ctx)
			return nil
		}
	}
}

const helperEnv = "MANYCAST_DAEMON_TEST_HELPER"

// TestMain makes the test binary a daemon, too, so that there is a process whose loop can hang.
func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == "" {
		os.Exit(m.Run())
	}
	l := newLooper()
	l.lock = &sync.Mutex{}
	close(l.ready)
	go func() { // the process as such goes on
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			switch in.Text() {
			case "block":
				l.lock.Lock()
			case "release":
				l.lock.Unlock()
			}
			fmt.Println("did", in.Text())
		}
	}()
	err := Run(context.Background(), slog.New(slog.DiscardHandler), l)
	fmt.Println("kept", l.kept, err)
}

// notifySocket is a service manager's end of the notify socket.
func notifySocket(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return sock
}

// hear returns what comes within a time; empty: nothing.
func hear(t *testing.T, sock *net.UnixConn, within time.Duration) string {
	t.Helper()
	buf := make([]byte, 512)
	sock.SetReadDeadline(time.Now().Add(within))
	n, err := sock.Read(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// await reads until something that contains want comes.
func await(t *testing.T, sock *net.UnixConn, want string) {
	t.Helper()
	for {
		switch got := hear(t, sock, 5*time.Second); {
		case strings.Contains(got, want):
			return
		case got == "":
			t.Fatalf("nothing more, want %q", want)
		}
	}
}

func TestReadyIsToldWhenAllTasksAre(t *testing.T) {
	sock := notifySocket(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	task := newLooper()
	done := make(chan error, 1)
	go func() { done <- Run(ctx, slog.New(slog.DiscardHandler), task) }()
	if got := hear(t, sock, 5*time.Second); got != "STATUS=starts, waits for: looper\nEXTEND_TIMEOUT_USEC=60000000" {
		t.Fatalf("told %q", got)
	}
	if got := hear(t, sock, 50*time.Millisecond); got != "" {
		t.Fatalf("told %q before the task was ready", got)
	}
	close(task.ready)
	if got := hear(t, sock, 5*time.Second); got != "READY=1\nSTATUS=serves" {
		t.Fatalf("told %q", got)
	}
	cancel()
	if got := hear(t, sock, 5*time.Second); got != "STOPPING=1\nSTATUS=ends and removes what it made" {
		t.Fatalf("told %q", got)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// lame is ready, and not as well as it should be.
type lame struct {
	*looper
	state atomic.Pointer[string]
}

func (l *lame) State() string { return *l.state.Load() }

// A start that takes long asks for time again and again, within what it was given; what is not well is said when it is ready and after.
func TestLongStartAndItsState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type word struct {
			at    time.Duration
			state string
		}
		var mu sync.Mutex
		var said []word
		began := time.Now()
		m := &manager{log: slog.New(slog.DiscardHandler), watchdog: 30 * time.Second, tell: func(s string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, word{time.Since(began), s})
		}}
		l := &lame{looper: newLooper()}
		bad, good := "has no quorum", ""
		l.state.Store(&bad)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go l.Run(ctx)
		go m.accompany(ctx, []Task{l})
		time.Sleep(time.Hour + time.Second)
		close(l.ready)
		synctest.Wait()
		l.state.Store(&good)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		last, ready := time.Duration(0), false
		for _, w := range said {
			switch {
			case strings.Contains(w.state, "EXTEND_TIMEOUT_USEC=60000000"):
				if w.at-last > extendBy/2 {
					t.Errorf("%v without a word", w.at-last)
				}
				last = w.at
			case strings.HasPrefix(w.state, "READY=1"):
				ready = true
				if w.state != "READY=1\nSTATUS=looper has no quorum" {
					t.Errorf("told %q", w.state)
				}
			}
		}
		if !ready || last < time.Hour-time.Minute || !slices.ContainsFunc(said, func(w word) bool { return w.state == "STATUS=serves" }) {
			t.Errorf("ready %t, last asked for time at %v; at the end %v", ready, last, said[len(said)-3:])
		}
	})
}

// The manager hears nothing while one loop of several does not turn, and hears of it.
func TestWatchdogIsFedByAllLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // the manager has its own goroutine
		var all []string
		tell := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, s)
		}
		told := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		}
		count := func(state string) (n int) {
			for _, s := range told() {
				if s == state {
					n++
				}
			}
			return n
		}
		m := &manager{log: slog.New(slog.DiscardHandler), watchdog: 30 * time.Second, tell: tell}
		one, two := newLooper(), newLooper()
		close(one.ready)
		close(two.ready)
		ctx, cancel := context.WithCancel(t.Context())
		for _, l := range []*looper{one, two} {
			go l.Run(ctx)
		}
		go m.accompany(ctx, []Task{Func("no loop", nil), Beneath(one, two)})

		time.Sleep(59 * time.Second)
		synctest.Wait()
		if n := count("WATCHDOG=1"); n != 6 {
			t.Errorf("fed %d times in a minute, want every 10 s: %q", n, told())
		}
		two.lock.Lock()
		time.Sleep(12 * time.Second) // it takes one more before it hangs
		synctest.Wait()
		mu.Lock()
		all = nil
		mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := count("WATCHDOG=1"); n != 0 {
			t.Errorf("fed %d times while a loop hung", n)
		}
		if !slices.Contains(told(), "STATUS=the event loop of looper has not turned for 10s") {
			t.Errorf("told %q", told())
		}
		two.lock.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		if n := count("WATCHDOG=1"); n == 0 || !slices.Contains(told(), "STATUS=serves") {
			t.Errorf("told %q when the loop turned again", told())
		}
		cancel()
		synctest.Wait()
		if said := told(); said[len(said)-1] != "STOPPING=1\nSTATUS=ends and removes what it made" {
			t.Errorf("told %q at the end", said)
		}
	})
}

// helper starts the test binary as a daemon and returns what it is told by, and what it says.
func helper(t *testing.T, env ...string) (*exec.Cmd, func(string), *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), helperEnv+"=1"), env...)
	in, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, func(line string) { fmt.Fprintln(in, line) }, bufio.NewScanner(out)
}

// In a real process, too: a loop that waits for a lock for ever feeds no more, though all else in the process goes on.
func TestWatchdogOfAProcessWhoseLoopHangs(t *testing.T) {
	sock := notifySocket(t)
	_, say, heard := helper(t, "WATCHDOG_USEC=300000")
	await(t, sock, "READY=1")
	await(t, sock, "WATCHDOG=1")
	await(t, sock, "WATCHDOG=1")
	say("block")
	await(t, sock, "has not turned")
	if got := hear(t, sock, time.Second); got != "" {
		t.Errorf("told %q while the loop hung", got)
	}
	say("ping")
	for _, want := range []string{"did block", "did ping"} {
		if !heard.Scan() || heard.Text() != want {
			t.Fatalf("the process said %q, want %q", heard.Text(), want)
		}
	}
	say("release")
	await(t, sock, "WATCHDOG=1")
}

// The second signal ends a process whose end hangs.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	sock := notifySocket(t)
	cmd, say, _ := helper(t, "WATCHDOG_USEC=300000")
	await(t, sock, "READY=1")
	say("block")
	await(t, sock, "has not turned")
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for _, last := range []bool{false, true} {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if !last {
			await(t, sock, "STOPPING=1")
			select {
			case err := <-ended:
				t.Fatalf("ended by the first signal: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	select {
	case err := <-ended:
		if err == nil || err.Error() != "signal: terminated" {
			t.Errorf("ended: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("goes on after the second signal")
	}
}

// A watchdog that the manager meant for another process is none of ours.
func TestWatchdogOfAnother(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "300000")
	t.Setenv("WATCHDOG_PID", "1")
	if m := newManager(slog.New(slog.DiscardHandler)); m.watchdog != 0 {
		t.Errorf("watchdog %v", m.watchdog)
	}
}

// SIGUSR2 is the restart: what there is stays.
func TestKeepsAfterARestartSignal(t *testing.T) {
	for signal, want := range map[syscall.Signal]string{
		syscall.SIGTERM: "kept false <nil>", syscall.SIGINT: "kept false <nil>", syscall.SIGUSR2: "kept true <nil>",
	} {
		sock := notifySocket(t)
		cmd, _, heard := helper(t)
		await(t, sock, "READY=1")
		cmd.Process.Signal(signal)
		if !heard.Scan() || heard.Text() != want {
			t.Errorf("%v: %q, want %q", signal, heard.Text(), want)
		}
	}
}

// A daemon that ends by an error has crashed, for its other tasks too.
func TestKeepsAfterAnError(t *testing.T) {
	l := newLooper()
	close(l.ready)
	broken := errors.New("broken")
	err := Run(t.Context(), slog.New(slog.DiscardHandler), l, Func("two", func(context.Context) error { return broken }))
	if !errors.Is(err, broken) || !l.kept {
		t.Errorf("%v, kept %v", err, l.kept)
	}
}
