package lab

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/netns"
)

// Cut takes all of a node's links down, as a power loss does; Restore takes them up and sets the routes that went with them.
func (l *Lab) Cut(node string) error {
	return l.eachInterface(node, (*netns.Namespace).Down)
}

// KillNode kills all processes of a node at once, those that they have started, too, and takes its links down, as a power loss does.
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
	return errors.Join(append(errs, l.killInside(namespace(l.name, node), &Removed{}))...)
}

// Restore undoes Cut.
func (l *Lab) Restore(node string) error {
	if err := l.eachInterface(node, (*netns.Namespace).Up); err != nil {
		return err
	}
	return addRoutes(l.spaces[node], l.topology.Node(node).Routes)
}

// CutLink takes an interface down, so that its link is cut for both ends: one sees its interface down, the other no carrier.
func (l *Lab) CutLink(e Endpoint) error {
	ns, err := l.Namespace(e.Node)
	if err != nil {
		return err
	}
	return ns.Down(e.Interface)
}

// HealLink undoes CutLink, and sets the node's routes by that interface again.
func (l *Lab) HealLink(e Endpoint) error {
	ns, err := l.Namespace(e.Node)
	if err != nil {
		return err
	}
	if err := ns.Up(e.Interface); err != nil {
		return err
	}
	return addRoutes(ns, l.topology.Node(e.Node).Routes)
}

// Signal sends a signal to a process of the lab, such as SIGSTOP, and does not wait.
func (l *Lab) Signal(node, name string, sig unix.Signal) error {
	for _, e := range l.entries() {
		if e.Node == node && e.Name == name && e.alive() {
			return unix.Kill(e.PID, sig)
		}
	}
	return fmt.Errorf("%s/%s does not run", node, name)
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
