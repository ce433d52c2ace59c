package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manycast/manycast/tdpd/internal/rtnl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Config of the Backend of the running kernel.
type Config struct {
	// PlatformLabels is what net.mpls.platform_labels is raised to: labels in use are below it. At most 1,048,575.
	PlatformLabels uint32
	// RouteProtocol is the route protocol (rtm_protocol) of IP routes with labels; 0: RTPROT_REDIRECT. Routing daemons must let them be, and
	// whoever reads FECs from the routing table has to pass over them.
	RouteProtocol uint8
	// Former is a file below /run that keeps what settings were before, so that a clean stop after a kill can put them back. Empty: none.
	Former string
}

// settle is how long others' changes are left to become one.
const settle = 50 * time.Millisecond

// noticesBuffer holds the notifications of some thousand of our routes. Losing some costs a comparison with the tables.
const noticesBuffer = 1 << 20

// Linux is the Backend of the kernel that it runs on. Settings are those of the network namespace of the thread that calls.
type Linux struct {
	config  Config
	log     *slog.Logger
	watch   *rtnl.Monitor
	changed chan struct{}
	links   links       // of listen
	heard   bool        // likewise: something to tell of
	doubt   atomic.Bool // the account may not be true
	ending  chan struct{}
	watcher sync.WaitGroup

	mu         sync.Mutex
	routes     *routes
	entries    reconciler
	sysctls    *sysctls
	interfaces []string // of the last Set
	room       uint32   // labels that the kernel's table holds
	closed     bool
}

// routeProtocol is the one number that FRR's zebra passes over. Of others it takes a route for a better one than its own, and removes its
// own; or, of those that it has itself, it sees its own route go when ours goes, and two of its own when it starts, of which version 8.4 dies.
const routeProtocol = unix.RTPROT_REDIRECT

// Open changes nothing before the first Set.
func Open(config Config, log *slog.Logger) (*Linux, error) {
	config.RouteProtocol = cmp.Or(config.RouteProtocol, routeProtocol)
	if config.PlatformLabels > platformMax {
		return nil, fmt.Errorf("platform labels %d: at most %d", config.PlatformLabels, platformMax)
	}
	sysctls, err := openSysctls(mplsDir, config.Former)
	if err != nil {
		return nil, err
	}
	conn, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	watch, err := rtnl.Listen([]int{unix.RTNLGRP_LINK, unix.RTNLGRP_MPLS_ROUTE, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE},
		noticesBuffer, concerns(conn.Port(), config.RouteProtocol))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	l := &Linux{config: config, log: log, watch: watch, changed: make(chan struct{}, 1), ending: make(chan struct{}),
		links: links{}, routes: &routes{conn: conn, protocol: config.RouteProtocol}, sysctls: sysctls}
	l.entries.tables = l.routes
	l.watcher.Go(l.listen)
	return l, nil
}

// concerns accepts what others do to links, to labels and to IP routes of our protocol. The kernel tells nothing of routes that it drops
// with their link: hence the links.
func concerns(port uint32, protocol uint8) []bpf.Instruction {
	const accept, drop = 1 << 18, 0
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: rtnl.OffsetType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: rtnl.Swap16(unix.RTM_NEWROUTE), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: rtnl.Swap16(unix.RTM_DELROUTE), SkipTrue: 6}, // a link
		bpf.LoadAbsolute{Off: rtnl.OffsetPort, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: rtnl.Swap32(port), SkipTrue: 5}, // our own doing
		bpf.LoadAbsolute{Off: rtnl.OffsetFamily, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_MPLS, SkipTrue: 2},
		bpf.LoadAbsolute{Off: rtnl.OffsetProtocol, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(protocol), SkipTrue: 1},
		bpf.RetConstant{Val: accept},
		bpf.RetConstant{Val: drop},
	}
}

// links are the states of links as told last: what of their flags decides over routes.
type links map[int]uint32

// changes says whether a notification tells of another state.
func (l links) changes(m rtnl.Message) (index int, changes bool) {
	link, err := rtnl.ParseLink(m.Data)
	if err != nil {
		return 0, false
	}
	state := link.Flags & (unix.IFF_UP | unix.IFF_RUNNING)
	before, known := l[link.Index]
	if m.Type == unix.RTM_DELLINK {
		delete(l, link.Index)
		return link.Index, true
	}
	l[link.Index] = state
	return link.Index, !known || state != before
}

// listen makes one signal of all changes of a short time.
func (l *Linux) listen() {
	for {
		if !l.hear() {
			return
		}
		if !l.heard {
			continue // it was of links that are nothing to us
		}
		select {
		case <-time.After(settle):
		case <-l.ending:
			return
		}
		for l.watch.Waiting() {
			if !l.hear() {
				return
			}
		}
		l.heard = false
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
}

// hear waits for a notification. It returns false where there will be no more.
func (l *Linux) hear() bool {
	err := l.watch.Receive(func(m rtnl.Message) {
		if m.Type == unix.RTM_NEWLINK || m.Type == unix.RTM_DELLINK {
			if index, changes := l.links.changes(m); !changes || !l.entries.used.has(index) {
				return
			}
		}
		l.meddled()
	})
	select {
	case <-l.ending:
		return false
	default:
	}
	if err == nil {
		return true
	}
	l.meddled()
	if !errors.Is(err, unix.ENOBUFS) {
		l.log.Error("changes to labels' routes by others are no longer noticed", "err", err)
		return false
	}
	return true
}

// meddled notes that the account may not be true.
func (l *Linux) meddled() {
	l.doubt.Store(true)
	l.heard = true
}

// Changed implements Backend.
func (l *Linux) Changed() <-chan struct{} { return l.changed }

// Set implements Backend.
func (l *Linux) Set(s State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
	settings := l.settings(s.Interfaces)
	c := newCompiler(l.room, len(s.Labels)+len(s.Prefixes))
	c.state(s)
	failures, err := l.entries.set(c.want, c.wrong)
	return errors.Join(settings, append(c.failures, failures...).err(), err)
}

// Update implements Backend.
func (l *Linux) Update(changes Changes) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
	settings := l.settings(l.interfaces)
	c := newCompiler(l.room, len(changes.Labels)+len(changes.Prefixes))
	gone := c.changes(changes)
	failures, err := l.entries.update(c.want, gone)
	return errors.Join(settings, append(c.failures, failures...).err(), err)
}

// look finds out whether somebody has meddled.
func (l *Linux) look() {
	waiting := l.watch.Waiting() // listen has not heard of it yet
	if l.doubt.Swap(false) || waiting {
		l.entries.known = false
	}
}

func (l *Linux) settings(interfaces []string) (err error) {
	l.interfaces = interfaces
	l.room, err = l.sysctls.ensure(l.config.PlatformLabels, interfaces)
	return err
}

// Entries implements Backend.
func (l *Linux) Entries() (State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
	if err := l.entries.know(); err != nil {
		return State{}, err
	}
	return decompile(l.entries.have), nil
}

// Others implements Backend.
func (l *Linux) Others() ([]uint32, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
	if err := l.entries.know(); err != nil {
		return nil, err
	}
	return slices.Clone(l.entries.others), nil
}

// Close implements Backend.
func (l *Linux) Close(keep bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs []error
	if !keep {
		errs = append(errs, l.remove())
	}
	close(l.ending)
	errs = append(errs, l.watch.Close())
	l.watcher.Wait()
	return errors.Join(append(errs, l.routes.conn.Close())...)
}

func (l *Linux) remove() error {
	l.entries.known = false
	failures, err := l.entries.set(nil, nil)
	used, e := l.routes.used()
	if err = errors.Join(failures.err(), err, e); err != nil {
		return err
	}
	return l.sysctls.restore(used)
}

var _ Backend = (*Linux)(nil)
