package lab

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A topology with a user shows what its processes need: they run as that user, who owns the nodes' directories and the bpffs, and
// have just the capabilities that they name.

var capabilityRE = regexp.MustCompile(`^[a-z][a-z_]{1,30}$`)

func (t *Topology) validatePrivileges() error {
	if t.User < 0 || t.User > 1<<31-2 {
		return fmt.Errorf("user %d: want a user id", t.User)
	}
	for _, n := range t.Nodes {
		for _, p := range n.Processes {
			if (t.User == 0 || p.Root) && len(p.Capabilities)+len(p.Groups) > 0 {
				return fmt.Errorf("process %s/%s: capabilities and groups of root's processes cannot be named: the topology wants a user", n.Name, p.Name)
			}
			for _, c := range p.Capabilities {
				if !capabilityRE.MatchString(c) {
					return fmt.Errorf("process %s/%s: capability %q: want a name such as net_admin", n.Name, p.Name, c)
				}
			}
		}
	}
	return nil
}

// Bin is the directory of the daemons' binaries, as the lab's user reaches it.
func (l *Lab) Bin() string {
	if l.topology.User == 0 {
		return l.store.Bin
	}
	return l.boundBin()
}

func (l *Lab) boundBin() string { return l.Dir("bin") }

// admit lets the user into the lab. The binaries are bound to a path of the lab's own: those above their directory may be closed
// to the user, as home directories are.
func (l *Lab) admit() error {
	if l.topology.User == 0 {
		return nil
	}
	if err := os.Mkdir(l.boundBin(), 0o755); err != nil {
		return err
	}
	if err := unix.Mount(l.store.Bin, l.boundBin(), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", l.store.Bin, l.boundBin(), err)
	}
	// Read only: nothing that is done to the lab's directory can harm the binaries.
	if err := unix.Mount("", l.boundBin(), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("bind %s read-only: %w", l.boundBin(), err)
	}
	return errors.Join(os.Chmod(l.Dir(""), 0o711), os.Chmod(l.Dir("notify"), 0o711), l.give(l.BPFFS()))
}

// give makes a file or a directory the user's.
func (l *Lab) give(path string) error {
	if l.topology.User == 0 {
		return nil
	}
	return os.Chown(path, l.topology.User, l.topology.User)
}

// unprivileged is the command line that runs argv as the lab's user with the capabilities and groups of a process and no way to more. The process id
// stays the program's own.
func (l *Lab) unprivileged(p Process, argv []string) []string {
	if l.topology.User == 0 {
		return argv
	}
	set := strings.Join(append([]string{"-all"}, p.Capabilities...), ",+")
	id, groups := strconv.Itoa(l.topology.User), "--clear-groups"
	if len(p.Groups) > 0 {
		groups = "--groups=" + strings.Join(p.Groups, ",")
	}
	return append([]string{
		"setpriv", "--reuid", id, "--regid", id, groups, "--no-new-privs",
		"--inh-caps", set, "--ambient-caps", set, "--bounding-set", set, "--", l.program(argv[0]),
	}, argv[1:]...)
}
