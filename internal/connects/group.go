package connects

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// OwnGroup is the directory of the control group that this process is in.
func OwnGroup() (string, error) {
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

// removeGroup removes a control group. Processes that are in it go on in the group above.
func removeGroup(dir string) error {
	const patience = 5 * time.Second
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Since(began) > patience {
			return fmt.Errorf("control group of the command: %w", err)
		}
		left, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("control group of the command: %w", err)
		}
		for _, pid := range strings.Fields(string(left)) {
			_ = os.WriteFile(filepath.Join(filepath.Dir(dir), "cgroup.procs"), []byte(pid), 0) // it may have ended
		}
	}
}
