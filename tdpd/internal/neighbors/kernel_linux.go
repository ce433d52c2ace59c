package neighbors

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// gather is how long changes are collected: a link that comes up makes many.
	gather = 20 * time.Millisecond
	// askAgain is how often a wanted neighbor is asked for that is not known: the kernel itself gives up after three seconds.
	askAgain = time.Second
	// usable are the states in which the kernel sends to a neighbor's address.
	usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT | netlink.NUD_NOARP
)

// kernel is the Source of the network namespace in which it was opened.
type kernel struct {
	nl      *netlink.Handle
	log     *slog.Logger
	tables  chan Table
	changed chan struct{}
	done    chan struct{}
	over    sync.WaitGroup

	mu     sync.Mutex
	wanted []Key
}

// Open follows the kernel's tables. Asking for neighbors needs CAP_NET_ADMIN.
func Open(log *slog.Logger) (Source, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("neighbors: netlink: %w", err)
	}
	k := &kernel{nl: nl, log: log, tables: make(chan Table), changed: make(chan struct{}, 1), done: make(chan struct{})}
	neighbors, links := make(chan netlink.NeighUpdate, 64), make(chan netlink.LinkUpdate, 64)
	failed := func(err error) {
		select {
		case <-k.done: // the end of the subscription is told so, too
		default:
			k.log.Warn("notifications about neighbors", "err", err)
			k.change()
		}
	}
	if err = netlink.NeighSubscribeWithOptions(neighbors, k.done, netlink.NeighSubscribeOptions{ErrorCallback: failed}); err == nil {
		err = netlink.LinkSubscribeWithOptions(links, k.done, netlink.LinkSubscribeOptions{ErrorCallback: failed})
	}
	if err != nil {
		close(k.done)
		nl.Close()
		return nil, fmt.Errorf("neighbors: subscribe: %w", err)
	}
	k.over.Go(func() {
		for range neighbors {
			k.change()
		}
	})
	k.over.Go(func() {
		for range links {
			k.change()
		}
	})
	k.over.Go(k.run)
	k.change()
	return k, nil
}

// Tables implements Source.
func (k *kernel) Tables() <-chan Table { return k.tables }

// Want implements Source.
func (k *kernel) Want(keys []Key) {
	k.mu.Lock()
	k.wanted = keys
	k.mu.Unlock()
	k.change()
}

// Close implements Source.
func (k *kernel) Close() error {
	close(k.done)
	k.over.Wait()
	k.nl.Close()
	return nil
}

func (k *kernel) change() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// run reads the tables when something has changed, passes on what is new, and asks for what is wanted and missing.
func (k *kernel) run() {
	var told Table
	var out chan Table // nil: nothing new
	now, gathers := Table{}, false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-k.done:
			return
		case <-k.changed:
			if !gathers { // the first of many counts
				gathers = true
				timer.Reset(gather)
			}
			continue
		case out <- now:
			told, out = now, nil
			continue
		case <-timer.C:
			gathers = false
		}
		next, err := k.read()
		if err != nil {
			k.log.Warn("read neighbors", "err", err)
		} else if now = next; !now.Equal(told) {
			out = k.tables
		}
		if k.ask(now) || err != nil {
			timer.Reset(askAgain)
		}
	}
}

func (k *kernel) read() (Table, error) {
	t := Table{Neighbors: map[Key]net.HardwareAddr{}, Links: map[int]Link{}}
	links, err := k.nl.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return t, fmt.Errorf("links: %w", err)
	}
	for _, l := range links {
		if a := l.Attrs(); len(a.HardwareAddr) == 6 {
			t.Links[a.Index] = Link{Name: a.Name, MAC: a.HardwareAddr, MTU: a.MTU, Up: a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_LOWER_UP != 0}
		}
	}
	all, err := k.nl.NeighList(0, 0)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return t, fmt.Errorf("neighbors: %w", err)
	}
	for _, n := range all {
		if addr, ok := netip.AddrFromSlice(n.IP); ok && n.State&usable != 0 && len(n.HardwareAddr) == 6 {
			t.Neighbors[Key{n.LinkIndex, addr.Unmap()}] = n.HardwareAddr
		}
	}
	return t, nil
}

// ask has the kernel resolve what is wanted and not known; it says whether there was any.
func (k *kernel) ask(t Table) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	missing := false
	for _, key := range k.wanted {
		if t.Neighbors[key] != nil || !t.Links[key.Interface].Up {
			continue
		}
		missing = true
		family := unix.AF_INET
		if key.Address.Is6() {
			family = unix.AF_INET6
		}
		err := k.nl.NeighSet(&netlink.Neigh{
			LinkIndex: key.Interface, Family: family, IP: key.Address.AsSlice(), State: netlink.NUD_NONE, Flags: netlink.NTF_USE,
		})
		if err != nil {
			k.log.Debug("ask for a neighbor", "interface", key.Interface, "address", key.Address, "err", err)
		}
	}
	return missing
}
