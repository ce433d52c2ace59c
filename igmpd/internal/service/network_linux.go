package service

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
	packetsWaiting = 1024
	settleTime     = 50 * time.Millisecond // changes of a burst become one
)

// linuxNetwork receives by a packet socket for each interface: a report of IGMPv1 or v2 goes to its own group and would not
// reach a raw socket on a multicast router. It sends by one raw socket.
type linuxNetwork struct {
	names   map[string]bool
	log     *slog.Logger
	nl      *netlink.Handle
	send    *sender
	packets chan Packet
	changed chan struct{}

	done    chan struct{}
	readers sync.WaitGroup
	sockets map[string]*portSocket // by name; owned by the caller of Ports
	ports   map[string]PortState
	byIndex map[int]string
}

// OpenNetwork opens the sockets; names are the interfaces to be served. They may come and go.
func OpenNetwork(names []string, log *slog.Logger) (Network, error) {
	n := &linuxNetwork{
		names: make(map[string]bool), log: log,
		packets: make(chan Packet, packetsWaiting), changed: make(chan struct{}, 1), done: make(chan struct{}),
		sockets: make(map[string]*portSocket), ports: make(map[string]PortState), byIndex: make(map[int]string),
	}
	for _, name := range names {
		n.names[name] = true
	}
	var err error
	if n.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if n.send, err = newSender(); err != nil {
		n.nl.Close()
		return nil, fmt.Errorf("IGMP socket: %w", needs(err))
	}
	if err := n.watch(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func needs(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: needs CAP_NET_RAW", err)
	}
	return err
}

// watch subscribes to links, addresses and routes.
func (n *linuxNetwork) watch() error {
	links, addrs, routes := make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64), make(chan netlink.RouteUpdate, 64)
	report := func(err error) {
		select {
		case <-n.done: // they are closed by us
			return
		default:
		}
		n.log.Warn("netlink notifications", "err", err)
		n.tell()
	}
	if err := netlink.LinkSubscribeWithOptions(links, n.done, netlink.LinkSubscribeOptions{ErrorCallback: report}); err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, n.done, netlink.AddrSubscribeOptions{ErrorCallback: report}); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	if err := netlink.RouteSubscribeWithOptions(routes, n.done, netlink.RouteSubscribeOptions{ErrorCallback: report}); err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	go n.coalesce(links, addrs, routes)
	return nil
}

// coalesce makes one Changed of the changes of a short time.
func (n *linuxNetwork) coalesce(links <-chan netlink.LinkUpdate, addrs <-chan netlink.AddrUpdate, routes <-chan netlink.RouteUpdate) {
	defer func() { // who fills them waits for room, not for done
		drain(links)
		drain(addrs)
		drain(routes)
	}()
	var settle <-chan time.Time
	for {
		var open bool
		select {
		case _, open = <-links:
		case _, open = <-addrs:
		case _, open = <-routes:
		case <-settle:
			settle = nil
			n.tell()
			continue
		case <-n.done:
			return
		}
		if !open { // a subscription ended: without it nothing is certain, so look regularly
			n.log.Warn("netlink notifications ended; looking every second")
			n.poll()
			return
		}
		if settle == nil {
			settle = time.After(settleTime)
		}
	}
}

func drain[T any](updates <-chan T) {
	for range updates {
	}
}

func (n *linuxNetwork) poll() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.tell()
		case <-n.done:
			return
		}
	}
}

func (n *linuxNetwork) tell() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

func (n *linuxNetwork) Packets() <-chan Packet   { return n.packets }
func (n *linuxNetwork) Changed() <-chan struct{} { return n.changed }

// Ports implements Network.
func (n *linuxNetwork) Ports() ([]PortState, error) {
	links, err := n.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	clear(n.byIndex)
	clear(n.ports)
	for _, l := range links {
		attrs := l.Attrs()
		n.byIndex[attrs.Index] = attrs.Name
		if !n.names[attrs.Name] {
			continue
		}
		st := PortState{
			Name: attrs.Name, Index: attrs.Index, Hardware: attrs.HardwareAddr.String(), Up: attrs.Flags&net.FlagUp != 0, MTU: attrs.MTU,
		}
		errs = append(errs, n.addresses(l, &st))
		if st.Up {
			if err := n.listen(st.Name, attrs.Index); err != nil {
				errs = append(errs, err)
				st.Up = false
			}
		}
		n.ports[st.Name] = st
	}
	states := make([]PortState, 0, len(n.ports))
	for name := range n.names {
		st := n.ports[name]
		if !st.Up {
			n.deaf(name)
		}
		if st.Name != "" {
			states = append(states, st)
		}
	}
	return states, errors.Join(errs...)
}

func (n *linuxNetwork) addresses(l netlink.Link, st *PortState) error {
	addrs, err := n.nl.AddrList(l, unix.AF_INET)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", st.Name, err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP.To4())
		if !ok {
			continue
		}
		bits, _ := a.Mask.Size()
		if !st.Address.IsValid() && a.Flags&unix.IFA_F_SECONDARY == 0 {
			st.Address = ip
		}
		st.Prefixes = append(st.Prefixes, netip.PrefixFrom(ip, bits).Masked())
	}
	return nil
}

// listen opens the interface's packet socket, anew when the interface was made anew.
func (n *linuxNetwork) listen(name string, index int) error {
	if s := n.sockets[name]; s != nil && s.index == index && !s.ended() {
		return nil
	}
	n.deaf(name)
	s, err := openPort(name, index)
	if err != nil {
		return fmt.Errorf("packet socket on %s: %w", name, needs(err))
	}
	n.sockets[name] = s
	n.readers.Go(func() {
		s.read(n.packets, n.done)
		n.tell() // the interface may be there again
	})
	return nil
}

func (n *linuxNetwork) deaf(name string) {
	if s := n.sockets[name]; s != nil {
		s.close()
		delete(n.sockets, name)
	}
}

// Route implements Network.
func (n *linuxNetwork) Route(to netip.Addr) (Hop, bool) {
	routes, err := n.nl.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return Hop{}, false
	}
	r := routes[0]
	if r.Type != unix.RTN_UNICAST && r.Type != unix.RTN_LOCAL {
		return Hop{}, false
	}
	name := n.byIndex[r.LinkIndex]
	if name == "" {
		return Hop{}, false
	}
	return Hop{Port: name, Local: r.Type == unix.RTN_LOCAL}, true
}

// Send implements Network.
func (n *linuxNetwork) Send(port string, to netip.Addr, payload []byte) error {
	st := n.ports[port]
	if !st.Up || !st.Address.IsValid() {
		return fmt.Errorf("interface %s is down or has no address", port)
	}
	return n.send.send(st.Index, st.Address, to, payload)
}

// Close ends the receivers.
func (n *linuxNetwork) Close() error {
	close(n.done)
	for name := range n.sockets {
		n.deaf(name)
	}
	n.readers.Wait()
	n.nl.Close()
	return n.send.close()
}
