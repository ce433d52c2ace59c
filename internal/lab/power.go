package lab

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/netns"
)

// Cut takes all of a node's links down, as a power loss does; Restore takes them up and sets the routes that went with them.
func (l *Lab) Cut(node string) error {
	return l.eachInterface(node, (*netns.Namespace).Down)
}

// KillNode kills all processes of a node at once and takes its links down, as a power loss does.
func (l *Lab) KillNode(node string) error {
	if err := l.Cut(node); err != nil {
		return err
	}
	var errs []error
	for _, e := range l.entries() {
		if e.Node == node && e.alive() {
			errs = append(errs, l.signal(e, unix.SIGKILL, 10*time.Second))
		}
	}
	return errors.Join(errs...)
}

// Restore undoes Cut.
func (l *Lab) Restore(node string) error {
	if err := l.eachInterface(node, (*netns.Namespace).Up); err != nil {
		return err
	}
	return addRoutes(l.spaces[node], l.topology.Node(node).Routes)
}

func (l *Lab) eachInterface(node string, f func(*netns.Namespace, string) error) error {
	ns, err := l.Namespace(node)
	if err != nil {
		return err
	}
	for _, ifname := range l.topology.interfaces(node) {
		if err := f(ns, ifname); err != nil {
			return err
		}
	}
	return nil
}
