package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/bpfnet"
)

const (
	waysSettle = 100 * time.Millisecond // changes of routes come in numbers
	waysEvery  = time.Second            // where the kernel tells no more
)

// wayWatch keeps the map of ways as the kernel's routes are. The programs cannot ask: bpf_fib_lookup is for hosts that forward.
type wayWatch struct {
	nl         *netlink.Handle
	interfaces map[int]bool
	is         *ebpf.Map
	at         *ebpf.Variable // when it was written, ns since boot
	log        *slog.Logger
	done       <-chan struct{}
	stop       func()
	ended      sync.WaitGroup
}

// watchWays has written the map when it returns.
func watchWays(names []string, is *ebpf.Map, at *ebpf.Variable, log *slog.Logger) (_ *wayWatch, err error) {
	ctx, stop := context.WithCancel(context.Background())
	w := &wayWatch{interfaces: make(map[int]bool), is: is, at: at, log: log, done: ctx.Done(), stop: stop}
	if w.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	defer func() {
		if err != nil {
			stop()
			w.nl.Close()
		}
	}()
	for _, name := range names {
		link, err := w.nl.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("interface %s: %w (see `ip link`)", name, err)
		}
		w.interfaces[link.Attrs().Index] = true
	}
	updates := make(chan netlink.RouteUpdate, 64)
	err = netlink.RouteSubscribeWithOptions(updates, w.done, netlink.RouteSubscribeOptions{
		ErrorCallback: func(err error) { log.Debug("notifications of routes", "err", err) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	if err := w.write(); err != nil {
		return nil, err
	}
	w.ended.Go(func() { w.follow(updates) })
	return w, nil
}

// follow writes the map anew when routes have changed.
func (w *wayWatch) follow(updates <-chan netlink.RouteUpdate) {
	var settle, poll <-chan time.Time
	for {
		select {
		case <-w.done:
			if updates != nil {
				for range updates { // who fills it waits for room, not for done
				}
			}
			return
		case _, open := <-updates:
			if !open {
				w.log.Warn("notifications of routes ended; looking every second")
				tick := time.NewTicker(waysEvery)
				defer tick.Stop()
				updates, poll = nil, tick.C
			}
			if settle == nil {
				settle = time.After(waysSettle)
			}
			continue
		case <-settle:
			settle = nil
		case <-poll:
		}
		if err := w.write(); err != nil {
			w.log.Warn("next hops of servers are not known", "err", err)
		}
	}
}

func (w *wayWatch) write() error {
	var all []route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := w.nl.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			all = append(all, routeOf(family, r))
		}
	}
	var now unix.Timespec
	return errors.Join(bpfnet.SyncMap(w.is, waysOf(all, w.interfaces)), unix.ClockGettime(unix.CLOCK_BOOTTIME, &now), w.at.Set(uint64(now.Nano())))
}

func routeOf(family int, r netlink.Route) route {
	is := route{prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0), metric: r.Priority}
	if family == netlink.FAMILY_V6 {
		is.prefix = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if r.Dst != nil {
		a, _ := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		is.prefix = netip.PrefixFrom(a.Unmap(), bits)
	}
	if len(r.MultiPath) == 0 {
		r.MultiPath = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via, Flags: r.Flags}}
	}
	for _, n := range r.MultiPath {
		if n.Flags&unix.RTNH_F_DEAD != 0 {
			continue
		}
		gateway := n.Gw
		if via, ok := n.Via.(*netlink.Via); ok {
			gateway = via.Addr
		}
		a, _ := netip.AddrFromSlice(gateway) // none: not valid
		is.hops = append(is.hops, hop{n.LinkIndex, a.Unmap()})
	}
	return is
}

func (w *wayWatch) close() {
	w.stop()
	w.ended.Wait()
	w.nl.Close()
}
