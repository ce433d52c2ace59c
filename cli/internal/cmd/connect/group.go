package connect

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/cli/internal/cmdutil"
)

// group is a control group below this process' own.
type group struct{ dir string }

func newGroup(name string) (group, error) {
	own, err := ownGroup()
	if err != nil {
		return group{}, err
	}
	g := group{filepath.Join(own, name)}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return group{}, fmt.Errorf("control group for the command (as root?): %w", err)
	}
	return g, nil
}

// ownGroup is the directory of the control group that this process is in.
func ownGroup() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("find cgroup2: %w", err)
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("find this process' control group: %w", err)
	}
	for mount := range strings.Lines(string(mounts)) {
		f := strings.Fields(mount)
		if len(f) < 3 || f[2] != "cgroup2" {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				return filepath.Join(f[1], path), nil
			}
		}
	}
	return "", errors.New("cgroup2 is not mounted; `mount -t cgroup2 none /sys/fs/cgroup` does")
}

// run runs a command in the group to its end, and hands it the signals that come meanwhile.
func (g group) run(command *exec.Cmd) error {
	dir, err := os.Open(g.dir)
	if err != nil {
		return fmt.Errorf("control group for the command: %w", err)
	}
	defer dir.Close()
	command.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	if err := command.Start(); err != nil {
		return fmt.Errorf("start the command: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for {
		select {
		case s := <-signals:
			if !fromTerminal(s) {
				_ = command.Process.Signal(s) // it may have ended
			}
		case err := <-ended:
			return exit(err)
		}
	}
}

var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGWINCH,
}

// fromTerminal says that the command has had the signal as well: a terminal gives these to all of its foreground.
func fromTerminal(s os.Signal) bool {
	if s != syscall.SIGINT && s != syscall.SIGQUIT && s != syscall.SIGWINCH {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}

// exit is how a command has ended as this one's end; by a signal it is that of a shell.
func exit(err error) error {
	var e *exec.ExitError
	if !errors.As(err, &e) {
		return err
	}
	if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return cmdutil.Exit(128 + int(s.Signal()))
	}
	return cmdutil.Exit(e.ExitCode())
}

// remove removes the group. Processes that the command has left in it go on in the group above.
func (g group) remove() error {
	const patience = 5 * time.Second
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := os.Remove(g.dir)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Since(began) > patience {
			return fmt.Errorf("control group of the command: %w", err)
		}
		left, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
		if err != nil {
			return fmt.Errorf("control group of the command: %w", err)
		}
		for _, pid := range strings.Fields(string(left)) {
			_ = os.WriteFile(filepath.Join(filepath.Dir(g.dir), "cgroup.procs"), []byte(pid), 0) // it may have ended
		}
	}
}
