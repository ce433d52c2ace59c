package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/rtnl"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Times of a Linux watcher.
const (
	settle = 50 * time.Millisecond // changes of a burst become one
	calm   = time.Second           // between readings of all there is
)

// noticesBuffer holds the notifications of some ten thousand routes. Losing some costs a reading of all.
const noticesBuffer = 32 << 20

// Linux is the Watcher of the kernel that it runs on.
type Linux struct {
	log     *slog.Logger
	conn    *rtnl.Conn
	nl      *netlink.Handle
	watch   *rtnl.Monitor
	out     chan Change
	notices chan notice

	rib        *rib
	interfaces map[int]*Interface
	told       bool   // something has been told
	pending    Change // not yet taken
	next       Change // likewise, and cut off: it comes first
	whole      bool   // rib has all there is
	look       bool   // interfaces may have changed
}

// notice is one notification: of a route, of an interface, or that all is to be read.
type notice struct {
	route rtnl.Route
	gone  bool
	flags uint16
	all   bool
	look  bool // at the interfaces
	lost  int  // an interface that went, or went down: the kernel drops routes with it, and does not tell of each
}

const noticesWaiting = 4096

// Open watches the network namespace of the thread that calls. Routes of protocol ignore are passed over.
func Open(ignore uint8, log *slog.Logger) (*Linux, error) {
	conn, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netlink: %w", err), conn.Close())
	}
	watch, err := rtnl.Listen([]int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE}, noticesBuffer, but(ignore))
	if err != nil {
		nl.Close()
		return nil, errors.Join(err, conn.Close())
	}
	return &Linux{log: log, conn: conn, nl: nl, watch: watch, out: make(chan Change), notices: make(chan notice, noticesWaiting),
		rib: newRIB(ignore), interfaces: map[int]*Interface{}}, nil
}

// but accepts all but routes of a protocol.
func but(ignore uint8) []bpf.Instruction {
	const accept, drop = 1 << 18, 0
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: rtnl.OffsetType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: rtnl.Swap16(unix.RTM_NEWROUTE), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: rtnl.Swap16(unix.RTM_DELROUTE), SkipTrue: 3},
		bpf.LoadAbsolute{Off: rtnl.OffsetProtocol, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(ignore), SkipTrue: 1},
		bpf.RetConstant{Val: drop},
		bpf.RetConstant{Val: accept},
	}
}

// Changes implements Watcher.
func (l *Linux) Changes() <-chan Change { return l.out }

// Run implements Watcher. It can run once.
func (l *Linux) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	heard := make(chan error, 1)
	go func() { heard <- l.listen(ctx) }()
	err := l.serve(ctx, heard)
	cancel()
	l.nl.Close()
	return errors.Join(err, l.watch.Close(), l.conn.Close())
}

// serve takes notices, and tells what has settled.
func (l *Linux) serve(ctx context.Context, heard <-chan error) error {
	reading, telling := time.After(0), (<-chan time.Time)(nil)
	last := time.Time{}
	for {
		var out chan Change
		if telling == nil && l.next.empty() {
			l.next = l.pending.cut()
		}
		if !l.next.empty() {
			out = l.out
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-heard:
			return err
		case n := <-l.notices:
			if l.notes(n) && reading == nil {
				reading = time.After(max(settle, calm-time.Since(last)))
			}
			if telling == nil {
				telling = time.After(settle)
			}
		case <-reading:
			reading, last = nil, time.Now()
			if err := l.read(); err != nil {
				l.log.Warn("read the routing table; it is tried again", "err", err)
				reading = time.After(calm)
			}
			l.collect()
		case <-telling:
			telling = nil
			l.collect()
		case out <- l.next:
			l.next = Change{}
		}
	}
}

// notes takes a notice and those that wait behind it: to wait for each is slower than to take it.
func (l *Linux) notes(n notice) (all bool) {
	for range noticesWaiting {
		all = l.note(n) || all
		select {
		case n = <-l.notices:
		default:
			return all
		}
	}
	return l.note(n) || all
}

// note takes a notice, and says whether all routes are to be read.
func (l *Linux) note(n notice) (all bool) {
	switch {
	case n.all, n.look:
		l.look = true
		return n.all || n.lost != 0 && l.rib.uses(n.lost)
	case n.gone:
		l.rib.gone(n.route)
	default:
		l.rib.changed(n.route, n.flags)
	}
	return false
}

// collect adds what has changed to what is to be told. Nothing is while the routes are not all there.
func (l *Linux) collect() {
	if !l.whole {
		return
	}
	c := newChange(!l.told)
	l.rib.take(c.Routes)
	if l.look {
		err := l.lookAtInterfaces(c.Interfaces)
		if l.look = err != nil; l.look {
			l.log.Warn("read the interfaces; it is tried again", "err", err)
			l.again()
		}
	}
	if !c.empty() {
		l.told = true
		l.pending.merge(c)
	}
}

// again has all read once more.
func (l *Linux) again() {
	select {
	case l.notices <- notice{all: true}:
	default: // full: what waits there leads here again
	}
}

// read reads all routes. Notifications of the meantime follow, and are true after it.
func (l *Linux) read() error {
	l.rib.reset()
	l.whole, l.look = false, true
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := l.conn.Dump(family, 0, l.rib.add); err != nil {
			return err
		}
	}
	l.whole = true
	return nil
}

// listen hands notifications on until ctx ends. What is lost is made good by reading all.
func (l *Linux) listen(ctx context.Context) error {
	hand := func(n notice) {
		select {
		case l.notices <- n:
		case <-ctx.Done():
		}
	}
	links := map[int]rtnl.Link{}
	for ctx.Err() == nil {
		err := l.watch.Receive(func(m rtnl.Message) {
			switch m.Type {
			case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
				if r, err := rtnl.ParseRoute(m.Data); err == nil && l.rib.concerns(&r) {
					hand(notice{route: r, gone: m.Type == unix.RTM_DELROUTE, flags: m.Flags})
				}
			case unix.RTM_NEWLINK, unix.RTM_DELLINK:
				if n := ofLink(links, m); n.look {
					hand(n)
				}
			case unix.RTM_NEWADDR:
				hand(notice{look: true})
			default:
				hand(notice{all: true}) // the kernel drops routes with addresses, and does not tell of each
			}
		})
		switch {
		case errors.Is(err, unix.ENOBUFS):
			hand(notice{all: true})
		case err != nil && ctx.Err() == nil:
			return err
		}
	}
	return nil
}

// ofLink makes a notice of what is told of a link; links are as told last.
func ofLink(links map[int]rtnl.Link, m rtnl.Message) notice {
	const runs = unix.IFF_UP | unix.IFF_RUNNING
	now, err := rtnl.ParseLink(m.Data)
	if err != nil {
		return notice{all: true, look: true}
	}
	now.Flags &= runs
	before, known := links[now.Index]
	if m.Type == unix.RTM_DELLINK {
		delete(links, now.Index)
		return notice{look: true, lost: now.Index}
	}
	links[now.Index] = now
	n := notice{look: !known || now != before}
	if n.look && now.Flags != runs {
		n.lost = now.Index
	}
	return n
}

// lookAtInterfaces writes those that are others than before.
func (l *Linux) lookAtInterfaces(into map[int]*Interface) error {
	now, err := l.listInterfaces()
	if err != nil {
		return err
	}
	for index, i := range now {
		if !i.equal(l.interfaces[index]) {
			into[index] = i
		}
	}
	for index := range l.interfaces {
		if now[index] == nil {
			into[index] = nil
		}
	}
	l.interfaces = now
	return nil
}

func (l *Linux) listInterfaces() (map[int]*Interface, error) {
	links, err := l.nl.LinkList()
	if err != nil {
		return nil, err
	}
	addrs, err := l.nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	now := map[int]*Interface{}
	for _, link := range links {
		a := link.Attrs()
		now[a.Index] = &Interface{Index: a.Index, Name: a.Name, Up: a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_RUNNING != 0,
			Loopback: a.Flags&net.FlagLoopback != 0}
	}
	for _, a := range addrs {
		i := now[a.LinkIndex]
		addr, ok := netip.AddrFromSlice(a.IP)
		bits, _ := a.Mask.Size()
		if i != nil && ok {
			i.Addresses = append(i.Addresses, netip.PrefixFrom(addr.Unmap(), bits))
		}
	}
	for _, i := range now {
		slices.SortFunc(i.Addresses, netip.Prefix.Compare)
	}
	return now, nil
}

var _ Watcher = (*Linux)(nil)
