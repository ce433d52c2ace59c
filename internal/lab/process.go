package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// readyWithin is how long a process may take until it is ready.
const readyWithin = 30 * time.Second

// Start starts a process of the topology and waits until it is ready.
func (l *Lab) Start(ctx context.Context, node, name string) error {
	_, p, err := l.topology.process(node + "/" + name)
	if err != nil {
		return err
	}
	argv, err := l.expand(node, p.Command)
	if err != nil {
		return err
	}
	logFile, err := os.OpenFile(l.LogPath(node, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	notify, err := listenNotify(filepath.Join(l.Dir("notify"), node+"-"+name))
	if err != nil {
		return err
	}
	defer notify.Close()
	if err := l.give(notify.path); err != nil {
		return err
	}

	// The process outlives this command: neither its context nor its terminal is ours.
	if !p.Root {
		argv = l.unprivileged(*p, argv)
	}
	if p.Nice != 0 {
		argv = append([]string{"nice", "-n", strconv.Itoa(p.Nice)}, argv...)
	}
	cmd := l.Command(context.Background(), node, argv...)
	if cmd.Err != nil {
		return cmd.Err
	}
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+notify.path)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s/%s: %w", node, name, err)
	}
	ended, err := l.record(node, name, cmd)
	if err != nil {
		return err
	}
	if p.Ready == "none" {
		return nil
	}
	return l.waitReady(ctx, node, name, notify, ended)
}

// record keeps the process in the state and waits for its end, so that no zombie stays.
func (l *Lab) record(node, name string, cmd *exec.Cmd) (ended chan struct{}, err error) {
	pid := cmd.Process.Pid
	start, _, _ := stat(pid)
	ended = make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reap[pid] = ended
	go func() {
		cmd.Wait() //nolint:errcheck // how it ended is in its log
		close(ended)
	}()
	l.state.Processes = append(l.state.Processes, entry{Node: node, Name: name, PID: pid, Start: start})
	return ended, l.save()
}

func (l *Lab) waitReady(ctx context.Context, node, name string, n *notifySocket, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- n.wait(ctx) }()
	var why string
	select {
	case err := <-ready:
		if err == nil {
			return nil
		}
		why = fmt.Sprintf("was not ready within %v", readyWithin)
	case <-ended:
		why = "ended"
	}
	text, _ := os.ReadFile(l.LogPath(node, name))
	return fmt.Errorf("%s/%s %s; its log ends with:\n%s", node, name, why, lastLines(string(text), 8))
}

// Kill sends SIGKILL to a process of the lab and waits until it is gone.
func (l *Lab) Kill(node, name string) error { return l.end(node, name, unix.SIGKILL) }

// Stop sends SIGTERM to a process of the lab and waits until it is gone.
func (l *Lab) Stop(node, name string) error { return l.end(node, name, unix.SIGTERM) }

func (l *Lab) end(node, name string, sig unix.Signal) error {
	for _, e := range l.entries() {
		if e.Node == node && e.Name == name && e.alive() {
			return l.signal(e, sig, 10*time.Second)
		}
	}
	return fmt.Errorf("%s/%s does not run", node, name)
}

// signal sends a signal to a process and waits until it is gone.
func (l *Lab) signal(e entry, sig unix.Signal, within time.Duration) error {
	if err := unix.Kill(e.PID, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%s/%s: %w", e.Node, e.Name, err)
	}
	l.mu.Lock()
	reaped := l.reap[e.PID]
	l.mu.Unlock()
	for deadline := time.Now().Add(within); e.alive(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s/%s (process %d) did not end within %v", e.Node, e.Name, e.PID, within)
		}
		select {
		case <-reaped:
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

func (l *Lab) entries() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]entry(nil), l.state.Processes...)
}

// alive says whether this very process still runs; a zombie does not.
func (e entry) alive() bool {
	start, status, err := stat(e.PID)
	return err == nil && start == e.Start && status != 'Z' && status != 'X'
}

// stat reads a process' start time (clock ticks since boot) and state.
func stat(pid int) (start uint64, status byte, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The command's name is in parentheses and may hold anything: count from behind it.
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(f) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(f))
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	return start, f[0][0], err
}

// notifySocket is the lab's side of sd_notify.
type notifySocket struct {
	*net.UnixConn
	path string
}

func listenNotify(path string) (*notifySocket, error) {
	os.Remove(path)
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("readiness socket: %w", err)
	}
	return &notifySocket{c, path}, nil
}

// wait returns when READY=1 came.
func (n *notifySocket) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { n.Close() })
	defer stop()
	buf := make([]byte, 4096)
	for {
		size, err := n.Read(buf)
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(string(buf[:size]), "\n") {
			if line == "READY=1" {
				return nil
			}
		}
	}
}

// lastLines returns the last n lines of a text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
