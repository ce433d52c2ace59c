package connect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	readyTimeout = 30 * time.Second
	stopTimeout  = 15 * time.Second
	saidMax      = 4 << 10 // bytes
)

// client is lbd client as a child.
type client struct {
	cmd   *exec.Cmd
	said  tail
	ended chan struct{} // closed at its end
	err   error         // how it has ended
}

// startClient starts lbd client and waits until connections can move. It ends with this process, however that does.
func startClient(ctx context.Context, dir string, argv ...string) (*client, error) {
	notify := filepath.Join(dir, "notify.sock")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("lbd client is to say when it is ready: %w", err)
	}
	defer l.Close()
	c := &client{cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	c.cmd.Stdout, c.cmd.Stderr = &c.said, &c.said
	// A group of its own: ^C is the command's.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() { // the signal comes when the thread ends that has started it
		runtime.LockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.err = c.cmd.Wait()
			close(c.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start lbd client: %w", err)
	}
	if err := c.ready(ctx, l); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

func (c *client) ready(ctx context.Context, l *net.UnixConn) error {
	told := make(chan error, 1)
	go func() { told <- readReady(l) }()
	select {
	case err := <-told:
		return err
	case <-c.ended:
		return errors.New("lbd client does not start")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readReady waits for READY=1 of sd_notify(3).
func readReady(l *net.UnixConn) error {
	if err := l.SetReadDeadline(time.Now().Add(readyTimeout)); err != nil {
		return err
	}
	b := make([]byte, 4096)
	for {
		n, err := l.Read(b)
		if err != nil {
			return fmt.Errorf("lbd client does not say that it is ready: %w", err)
		}
		for line := range strings.Lines(string(b[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				return nil
			}
		}
	}
}

// stop has it remove what it has made, and tells what it said if it could not.
func (c *client) stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-c.ended:
		if c.err != nil {
			return fmt.Errorf("lbd client: %w: %s", c.err, c.said.String())
		}
		return nil
	case <-time.After(stopTimeout):
		_ = c.cmd.Process.Kill()
		<-c.ended
		return fmt.Errorf("lbd client did not end within %v, and was killed: its programs go on", stopTimeout)
	}
}

// tail is the end of what was written.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - saidMax; over > 0 {
		t.b = append([]byte(nil), t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}
