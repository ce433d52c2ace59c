// Package netns makes and uses named network namespaces: nodes of a lab or of a test. A namespace is a file under /run/netns,
// as `ip netns` has it. Mounts are shared with the host: a bpffs or a state directory has one path for all.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"

	"github.com/vishvananda/netlink"
	nsfd "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const dir = "/run/netns"

// Namespace is an open named network namespace.
type Namespace struct {
	name string
	fd   int
	nl   *netlink.Handle
}

// Create makes a namespace with lo up. The name is free of slashes; that it exists already is an error.
func Create(name string) (*Namespace, error) {
	if name == "" || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
		return nil, fmt.Errorf("network namespace %q: not a usable name", name)
	}
	if err := prepare(); err != nil {
		return nil, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	path := filepath.Join(dir, name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return nil, fmt.Errorf("create network namespace: %w", err)
	}
	file.Close()
	if err := unshareTo(path); err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	n, err := Open(name)
	if err == nil {
		err = n.Up("lo")
	}
	if err != nil {
		return nil, errors.Join(err, Delete(name))
	}
	return n, nil
}

// prepare makes the directory a mount of its own, as `ip netns` does at its first namespace, and under the same lock. Were that left to
// it, what was mounted here before would be there twice, one below the other, and could not be removed.
func prepare() error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	share := func() error { return unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "") }
	if err = share(); errors.Is(err, unix.EINVAL) { // it is no mount
		if err = unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = share()
		}
	}
	if err != nil {
		return fmt.Errorf("make %s a mount of its own: %w", dir, err)
	}
	return nil
}

// unshareTo gives a new namespace a name. The thread that made it ends with its goroutine: it is never unlocked.
func unshareTo(path string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("unshare: %w", err)
			return
		}
		done <- unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}()
	return <-done
}

// Open opens a namespace that exists.
func Open(name string) (*Namespace, error) {
	fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	nl, err := netlink.NewHandleAt(nsfd.NsHandle(fd))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink in network namespace %s: %w", name, err)
	}
	return &Namespace{name: name, fd: fd, nl: nl}, nil
}

// Close lets go of the namespace; it goes on to exist.
func (n *Namespace) Close() error {
	n.nl.Close()
	return unix.Close(n.fd)
}

// Delete takes the name away and deletes the links inside, so that they are gone at once and not when the kernel gets to it.
// Processes inside keep the rest alive: end them before. A name that does not exist is no error.
func Delete(name string) error {
	path := filepath.Join(dir, name)
	if n, err := Open(name); err == nil {
		n.deleteLinks()
		n.Close()
	}
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	return nil
}

// List returns the names of all namespaces that start with prefix, sorted.
func List(prefix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, err
}

// Name is the name under /run/netns.
func (n *Namespace) Name() string { return n.name }

// Path is what setns and nsenter want.
func (n *Namespace) Path() string { return filepath.Join(dir, n.name) }

// Do calls f on this goroutine with its thread inside the namespace. Sockets that f opens stay inside; goroutines that f starts
// are outside. In f, /proc/thread-self/net is the namespace's, /proc/net is not.
func (n *Namespace) Do(f func() error) error {
	runtime.LockOSThread()
	before, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer unix.Close(before)
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", n.name, err)
	}
	defer func() {
		// A thread that cannot come back stays locked and ends with its goroutine.
		if unix.Setns(before, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// Command runs a program inside, by nsenter: only the network namespace changes, and the process id is the program's own.
func (n *Namespace) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.Path(), "--"}, argv...)...)
}

// DialContext dials from inside; address is numeric. It fits http.Transport.
func (n *Namespace) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = n.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen listens inside.
func (n *Namespace) Listen(network, address string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// Processes returns the ids of the processes whose main thread is inside.
func (n *Namespace) Processes() ([]int, error) {
	var want unix.Stat_t
	if err := unix.Fstat(n.fd, &want); err != nil {
		return nil, err
	}
	return processesIn(want)
}

func processesIn(want unix.Stat_t) ([]int, error) {
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, link := range links {
		var st unix.Stat_t
		if unix.Stat(link, &st) != nil || st.Dev != want.Dev || st.Ino != want.Ino {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(link, "/proc/%d/", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
