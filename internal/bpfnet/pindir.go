package bpfnet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// PinDir makes the directory for pins (0700, with its parents) and checks that it is on a bpffs. Names on a bpffs hold no dots.
func PinDir(path string) error {
	path = filepath.Clean(path)
	above := path
	for {
		var st unix.Statfs_t
		err := unix.Statfs(above, &st)
		if err == nil && st.Type == unix.BPF_FS_MAGIC {
			break
		}
		// A name that is not there is looked for above; a bpffs answers EPERM to one with a dot.
		if err == nil || above == filepath.Dir(above) {
			return fmt.Errorf("pin directory %s is not on a bpffs; `mount -t bpf bpf /sys/fs/bpf` makes one, or set bpffs to a directory on another", path)
		}
		above = filepath.Dir(above)
	}
	if rest := strings.TrimPrefix(path, above); strings.Contains(rest, ".") {
		return fmt.Errorf("pin directory %s: names on a bpffs cannot hold a dot; choose another name", path)
	}
	if err := os.MkdirAll(path, 0o700); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("pin directory: %w: make it as root, for user id %d, below directories of mode 0711: install -d -m 0700 -o %[2]d %s", err, os.Geteuid(), path)
	} else if err != nil {
		return fmt.Errorf("pin directory: %w", err)
	}
	return nil
}

// RemovePinDir removes a directory for pins. One that somebody has pins in yet, or that is not this process' to remove, stays: it lies in somebody
// else's directory, or is a mount of its own in what is read-only (systemd's ReadWritePaths=).
func RemovePinDir(path string) error {
	err := os.Remove(path)
	stays := []error{fs.ErrNotExist, fs.ErrPermission, unix.ENOTEMPTY, unix.EROFS, unix.EBUSY}
	if err == nil || slices.ContainsFunc(stays, func(e error) bool { return errors.Is(err, e) }) {
		return nil
	}
	return fmt.Errorf("remove pin directory: %w", err)
}

// LockPinDir makes sure that nobody else works with what is pinned in path: until the file is closed, or this process ends.
func LockPinDir(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("lock pin directory: %w", err)
	}
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return dir, nil
	}
	dir.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("pin directory %s is in use by another process: stop that, or give this one another directory (bpffs)", path)
	}
	return nil, fmt.Errorf("lock pin directory %s: %w", path, err)
}
