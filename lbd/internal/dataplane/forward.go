package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/portion"
)

// Chain are users and the servers that had them before (Fig 14).
type Chain struct {
	Users portion.Union
	Hops  []Hop      // the latest first, without this server, but with the owner where it had them before; at most MaxHops
	Ask   bool       // others may have had them, too, who are not known: packets of TCP that nobody knows come out of Strays (claim 10)
	Owner netip.Addr // IPv4: whose users they are now, where they are not this server's; zero: this server's, or not known
	Takes bool       // what another server takes for this one's is: it is about to have them, or stands by. Else it is sent on to the owner
	Owns  bool       // with Takes: it is about to have them, or has them and is out. It keeps a flow of UDP that comes back, whoever Owner is
}

// Hop is a former owner.
type Hop struct {
	Address netip.Addr // IPv4
	// Until is the last epoch in which it had them: twice the number, or one less where it comes after this server among those of one epoch. All
	// servers have them in the same order. Serial arithmetic (RFC 1982) of 20 bits.
	Until uint32
}

// MaxHops is how many former owners a chain has room for.
const MaxHops = 8

// Flow is one TCP connection of a VIP, of either family.
type Flow struct{ User, VIP netip.AddrPort }

func (f Flow) String() string { return f.User.String() + " to " + f.VIP.String() }

// Stray is a packet that nobody knows whose connection it is of.
type Stray struct {
	Flow  Flow
	Frame []byte // for the VIP, with its Ethernet header; nil where it is longer than a stray may be: 2048 bytes
}

// Forward is how packets go from one server to another.
type Forward struct {
	Port    uint16        // of UDP, for VXLAN, the same on all servers; 0: no packet is forwarded, and AgentService.Keeps is without effect
	Device  string        // name of the VXLAN device that is made; "": manycast0
	Address netip.Addr    // IPv4: this server's, as its peers know it; zero: as the kernel chooses
	Idle    time.Duration // a flow of UDP is known for so long after a packet of it; 0: 30 s
}

// Forwarder sends packets of connections to the servers that hold them, and holds packets of those that are being moved. Any
// goroutine may use it. Gates end with the plane; chains and owners of flows do not.
type Forwarder interface {
	// SetPeers makes servers the complete set of those who may forward to this one. What others send is dropped.
	SetPeers(servers []netip.Addr) error
	// Hold keeps the packets of flows here until Release: at most HoldFrames of each and HoldBytes of all, what is more is dropped
	// and counted. A flow is held, passed on or led to one server: what was said last holds.
	Hold(flows []Flow) error
	// Arm keeps those alone that another server sends on here by its Pass. What comes from routers goes the way of its chain: to where the
	// connection is still.
	Arm(flows []Flow) error
	// Pass sends packets of flows on to a server, whether they are known here or not, until Release. It has the last word: what it
	// does not know either it resets.
	Pass(flows []Flow, to netip.Addr) error
	// Release ends Hold, Arm and Pass. Packets that were held go up first, in their order: the connection has to be here.
	Release(flows []Flow) error
	// Abandon ends them, too, where the connection is not here: packets that were held are dropped, and TCP sends them again.
	Abandon(flows []Flow) error
	// SetFlows adds owners of flows: packets of such a flow that is not known here go there, before any chain, and the owner has the
	// last word.
	SetFlows(owners map[Flow]netip.Addr) error
	// DropFlows takes owners of flows back.
	DropFlows(flows []Flow) error
	// Strays are packets of flows with Chain.Ask that nobody knows, at most 1000/s of each CPU. Those that are not read in time are lost,
	// and counted. The channel ends with the plane.
	Strays() <-chan Stray
	// Inject lets a frame to a VIP, as Stray has it, go up as if it had come here. One whose sender has left the checksum to its card
	// TCP drops, and waits for the next: so it is with users on this host alone.
	Inject(frame []byte) error
	// Knows reports whether the kernel's socket table has the connection: a request is one, a listener is not, nor is TIME-WAIT.
	Knows(flow Flow) (bool, error)
	// FlowUsers are the users of the flows of UDP to one of vips and one of ports that are known here, one for each flow.
	FlowUsers(vips []netip.Addr, ports []Port) ([]netip.AddrPort, error)
}

// Bounds of what is held.
const (
	HoldFrames = 4096     // of a flow: a receive window full of segments
	HoldBytes  = 64 << 20 // of all flows
)

func checkChains(s AgentService) error {
	var errs []error
	if len(s.Chains) > 0 && !s.Keeps {
		errs = append(errs, errors.New("chains of a service that keeps no connections"))
	}
	for i, c := range s.Chains {
		if err := checkChain(c); err != nil {
			errs = append(errs, fmt.Errorf("chain %d, of %s: %w", i, c.Users, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("VIP %s: %w", s.VIP, err)
	}
	return nil
}

func checkChain(c Chain) error {
	if len(c.Hops) > MaxHops {
		return fmt.Errorf("%d hops: want %d at most", len(c.Hops), MaxHops)
	}
	if c.Owner.IsValid() && !isHost(c.Owner) {
		return fmt.Errorf("owner %s: not an IPv4 unicast address", c.Owner)
	}
	for i, h := range c.Hops {
		if !isHost(h.Address) {
			return fmt.Errorf("hop to %s: not an IPv4 unicast address", h.Address)
		}
		if i > 0 && isBefore(c.Hops[i-1].Until, h.Until) {
			return fmt.Errorf("hop to %s until %d behind one until %d: want the latest first", h.Address, h.Until, c.Hops[i-1].Until)
		}
	}
	return nil
}

// isBefore compares epochs by their last 20 bits (RFC 1982 section 3.2).
func isBefore(a, b uint32) bool {
	const bits = 20
	d := (b - a) & (1<<bits - 1)
	return d != 0 && d < 1<<(bits-1)
}

func checkFlow(f Flow) error {
	user, vip := f.User.Addr(), f.VIP.Addr()
	if !f.User.IsValid() || !f.VIP.IsValid() || user.Is4() != vip.Is4() || user.Is4In6() || vip.Is4In6() || user.Zone() != "" {
		return fmt.Errorf("flow of %s: want two addresses of one family, without a zone", f)
	}
	return nil
}

func checkFlows(flows []Flow) error {
	var errs []error
	for _, f := range flows {
		errs = append(errs, checkFlow(f))
	}
	return errors.Join(errs...)
}

func checkServers(servers ...netip.Addr) error {
	var errs []error
	for _, s := range servers {
		if !isHost(s) {
			errs = append(errs, fmt.Errorf("server %s: not an IPv4 unicast address", s))
		}
	}
	return errors.Join(errs...)
}
