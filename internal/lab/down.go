package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/manycast/manycast/internal/netns"
	"golang.org/x/sys/unix"
)

// Removed says what Down took away.
type Removed struct {
	Stopped    int // processes that ended when asked to
	Killed     int // processes that did not
	Namespaces int
	Mounts     int
	Directory  bool
}

// None says that there was nothing.
func (r Removed) None() bool { return r == Removed{} }

func (r Removed) String() string {
	if r.None() {
		return "nothing was there"
	}
	return fmt.Sprintf("%d processes stopped, %d killed, %d namespaces, %d mounts removed", r.Stopped, r.Killed, r.Namespaces, r.Mounts)
}

// Down removes a lab, also what a crash left of one: processes first, newest first, then namespaces, the bpffs, the directory.
func (s *Store) Down(ctx context.Context, name string) (Removed, error) {
	var r Removed
	if err := checkName(name); err != nil {
		return r, err
	}
	l := &Lab{store: s, name: name}
	if data, err := os.ReadFile(l.statePath()); err == nil {
		json.Unmarshal(data, &l.state) //nolint:errcheck // a damaged file names no processes; those inside are found below
	}
	errs := []error{l.stopRecorded(ctx, &r)}
	spaces, err := netns.List(namespacePrefix(name))
	errs = append(errs, err)
	for _, space := range spaces {
		errs = append(errs, l.killInside(space, &r))
		if err := netns.Delete(space); err != nil {
			errs = append(errs, err)
			continue
		}
		r.Namespaces++
	}
	for _, path := range []string{l.BPFFS(), l.boundBin()} {
		n, err := unmount(path)
		r.Mounts += n
		errs = append(errs, err)
	}
	for _, group := range leftGroups(name) {
		errs = append(errs, removeGroup(group))
	}
	if err := errors.Join(errs...); err != nil {
		return r, fmt.Errorf("lab %s is not wholly down: %w", name, err)
	}
	if _, err := os.Stat(l.Dir("")); err == nil {
		r.Directory = true
	}
	return r, os.RemoveAll(l.Dir(""))
}

// stopRecorded asks the processes that are on record to end, the newest first, and kills those that do not.
func (l *Lab) stopRecorded(ctx context.Context, r *Removed) error {
	var errs []error
	entries := l.state.Processes
	for i := len(entries) - 1; i >= 0; i-- {
		e := entries[i]
		if !e.alive() {
			continue
		}
		patience := 5 * time.Second
		if ctx.Err() != nil {
			patience = 0
		}
		if l.signal(e, unix.SIGTERM, patience) == nil {
			r.Stopped++
			continue
		}
		if err := l.signal(e, unix.SIGKILL, 5*time.Second); err != nil {
			errs = append(errs, err)
			continue
		}
		r.Killed++
	}
	return errors.Join(errs...)
}

// killInside kills whatever runs inside a namespace of the lab.
func (l *Lab) killInside(space string, r *Removed) error {
	ns, err := netns.Open(space)
	if err != nil {
		return nil // a name without a namespace behind it: Delete removes the name
	}
	defer ns.Close()
	pids, err := ns.Processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		start, _, err := stat(pid)
		if err != nil || pid == os.Getpid() {
			continue
		}
		e := entry{Node: space, Name: "leftover", PID: pid, Start: start}
		if !e.alive() {
			continue
		}
		if err := l.signal(e, unix.SIGKILL, 5*time.Second); err != nil {
			return err
		}
		r.Killed++
	}
	return nil
}

// unmount takes all mounts off a path and counts them. It asks the kernel what is mounted: what is bound there may be of the
// file system around it.
func unmount(path string) (n int, err error) {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("unmount %s: %w", path, err)
		}
		n++
	}
}

// Leftovers lists what a lab has on the machine: after Down it is empty.
func (s *Store) Leftovers(name string) ([]string, error) {
	left, err := netns.List(namespacePrefix(name))
	if err != nil {
		return nil, err
	}
	for i := range left {
		left[i] = "namespace " + left[i]
	}
	for _, group := range leftGroups(name) {
		left = append(left, "control group "+group)
	}
	dir := filepath.Join(s.Root, name)
	if _, err := os.Lstat(dir); err == nil {
		left = append(left, "directory "+dir)
	}
	return left, nil
}
