package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/netns"
)

// Routes watches the ways that a router's kernel has to one address, as the kernel tells of them.
type Routes struct {
	prefix netip.Prefix
	stop   chan struct{}
	done   chan struct{}

	mu      sync.Mutex
	changes []Ways // in order
	failed  error
}

// Ways are the gateways by which packets went from some time on; none: there was no route.
type Ways struct {
	At  time.Time
	Via []netip.Addr
}

// Lost is a way that a router had and then had not.
type Lost struct {
	At  time.Time
	Via netip.Addr
}

// WatchRoutes starts to watch the main table's route to an address.
func WatchRoutes(ns *netns.Namespace, to netip.Addr) (*Routes, error) {
	r := &Routes{prefix: netip.PrefixFrom(to, to.BitLen()), stop: make(chan struct{}), done: make(chan struct{})}
	updates := make(chan netlink.RouteUpdate, 64)
	err := ns.Do(func() error {
		return netlink.RouteSubscribeWithOptions(updates, r.stop, netlink.RouteSubscribeOptions{ListExisting: true, ErrorCallback: r.fail})
	})
	if err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	go func() {
		defer close(r.done)
		for u := range updates {
			r.take(u, time.Now())
		}
	}()
	return r, nil
}

func (r *Routes) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.stop: // the socket was closed
	default:
		r.failed = errors.Join(r.failed, err)
	}
}

func (r *Routes) take(u netlink.RouteUpdate, at time.Time) {
	if u.Dst == nil || u.Table != unix.RT_TABLE_MAIN {
		return
	}
	if ip, ok := netip.AddrFromSlice(u.Dst.IP); !ok || ip.Unmap() != r.prefix.Addr() {
		return
	}
	if ones, _ := u.Dst.Mask.Size(); ones != r.prefix.Bits() {
		return
	}
	w := Ways{At: at}
	if u.Type == unix.RTM_NEWROUTE {
		w.Via = gateways(u.Route)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, w)
}

func gateways(route netlink.Route) (all []netip.Addr) {
	add := func(ip []byte) {
		if a, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, a.Unmap())
		}
	}
	add(route.Gw)
	for _, hop := range route.MultiPath {
		add(hop.Gw)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// Now are the gateways that there are.
func (r *Routes) Now() []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.changes) == 0 {
		return nil
	}
	return slices.Clone(r.changes[len(r.changes)-1].Via)
}

// Lost are the ways that went from one time to another, in order.
func (r *Routes) Lost(from, to time.Time) []Lost {
	r.mu.Lock()
	defer r.mu.Unlock()
	return lost(r.changes, from, to)
}

func lost(changes []Ways, from, to time.Time) (all []Lost) {
	var before []netip.Addr
	for _, w := range changes {
		for _, via := range before {
			if !slices.Contains(w.Via, via) && !w.At.Before(from) && w.At.Before(to) {
				all = append(all, Lost{w.At, via})
			}
		}
		before = w.Via
	}
	return all
}

// Stop ends the watch; an error says that the kernel has told of changes that were not heard.
func (r *Routes) Stop() error {
	r.mu.Lock()
	close(r.stop)
	r.mu.Unlock()
	<-r.done
	if r.failed != nil {
		return fmt.Errorf("watch routes: %w", r.failed)
	}
	return nil
}
