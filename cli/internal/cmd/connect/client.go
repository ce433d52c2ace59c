package connect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/manycast/manycast/internal/connects"
)

const (
	readyTimeout = 30 * time.Second
	stopTimeout  = 15 * time.Second
	saidMax      = 4 << 10 // bytes
)

// client is lbd client as a child.
type client struct {
	cmd   *exec.Cmd
	alive io.Closer // a pipe: at its end, which comes with that of this process at the latest, the child removes what the run has
	said  *os.File
	ended chan struct{} // closed at its end
	err   error         // how it has ended
}

// startClient starts lbd client and waits until connections can move. It ends with this process, however that does.
func startClient(ctx context.Context, run *connects.Run, argv ...string) (*client, error) {
	notify := filepath.Join(run.Dir, "notify.sock")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("lbd client is to say when it is ready: %w", err)
	}
	defer l.Close()
	c := &client{cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	// A file and no pipe: what it says when this process has been killed must not end it before it has removed what it made.
	if c.said, err = os.Create(filepath.Join(run.Dir, "log")); err != nil {
		return nil, fmt.Errorf("log of lbd client: %w", err)
	}
	if c.alive, err = c.cmd.StdinPipe(); err != nil {
		return nil, errors.Join(fmt.Errorf("pipe to lbd client: %w", err), c.said.Close())
	}
	c.cmd.ExtraFiles = []*os.File{run.Share()}
	c.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	c.cmd.Stdout, c.cmd.Stderr = c.said, c.said
	// A group of its own: ^C is the command's.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start lbd client: %w", err), c.said.Close())
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
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
	defer c.said.Close()
	_ = c.alive.Close() // it may have ended
	select {
	case <-c.ended:
		if c.err != nil {
			return fmt.Errorf("lbd client: %w: %s", c.err, c.tail())
		}
		return nil
	case <-time.After(stopTimeout):
		_ = c.cmd.Process.Kill()
		<-c.ended
		return fmt.Errorf("lbd client did not end within %v, and was killed", stopTimeout)
	}
}

// tail is the end of what it said.
func (c *client) tail() string {
	info, err := c.said.Stat()
	if err != nil {
		return err.Error()
	}
	b := make([]byte, min(saidMax, info.Size()))
	n, _ := c.said.ReadAt(b, info.Size()-int64(len(b))) // what there is
	return string(bytes.TrimSpace(b[:n]))
}
