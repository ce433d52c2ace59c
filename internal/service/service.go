// Package service says what a service is: its addresses, ports and policy, in YAML, on the bus, and checked.
package service

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
)

// Modes: how an allocation is carried out.
const (
	Multicast = "multicast" // the director turns the VIP into a group, and routers carry each user's packets to who joined for it (Fig 7)
	Tags      = "tags"      // routers send each user's packets along its server's label-switched tree (Fig 17)
)

// Steering is when routers upstream begin to send a user along its server's tree, with Tags.
type Steering string

// Steerings.
const (
	Proactive Steering = "proactive" // all users, as soon as they are allocated
	Reactive  Steering = "reactive"  // each when its first packet has come to the director's router (claim 15)
)

// Refusal is what users get whom no server serves, with Tags.
type Refusal string

// Refusals.
const (
	RefuseReset       Refusal = "reset"       // a TCP reset; what is not TCP as with the next
	RefuseUnreachable Refusal = "unreachable" // ICMP
	RefuseDrop        Refusal = "drop"        // nothing
)

// Service is a name and its well-published addresses, served by a pool of servers.
type Service struct {
	Name     string     // lower-case letters, digits and hyphens, at most 63
	VIP      netip.Addr // unicast IPv4
	VIP6     netip.Addr // unicast IPv6, with Tags alone; zero: none
	Group    netip.Addr // private multicast IPv4, 232.0.0.0 to 239.255.255.255; with Tags zero, or what Multicast would use
	Ports    []Port
	Mode     string
	Policy   alloc.Policy
	Balance  policy.Balance // zero: the default
	Prefixes []policy.Prefix
	Slots    alloc.Slots
	Handover Handover
	Dynamic  Dynamic
	Refuse   Refusal     // with Tags alone
	Steering Steering    // likewise
	Split    steer.Split // NATs whose users are told apart by source port, too; with Tags and no Group alone
	Servers  []Server    // static use: without a bus
}

// Port is one port of a service; text is "tcp/80".
type Port struct {
	Proto  string // tcp or udp
	Number uint16
}

// String returns "tcp/80".
func (p Port) String() string { return p.Proto + "/" + strconv.Itoa(int(p.Number)) }

// ParsePort reads what String writes.
func ParsePort(s string) (Port, error) {
	proto, number, ok := strings.Cut(s, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if !ok || err != nil || n == 0 || proto != "tcp" && proto != "udp" {
		return Port{}, fmt.Errorf("port %q: want tcp or udp and a number from 1 to 65535, such as tcp/80", s)
	}
	return Port{proto, uint16(n)}, nil
}

// MarshalText writes "tcp/80".
func (p Port) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads "tcp/80".
func (p *Port) UnmarshalText(b []byte) error {
	port, err := ParsePort(string(b))
	*p = port
	return err
}

// Server is a member of a static pool.
type Server struct {
	Name     string
	Address  netip.Addr
	Weight   int // 0..alloc.MaxWeight
	Portions []portion.Portion
	Deny     []portion.Portion // parts of Portions that the server leaves to others, single senders for instance (Fig 7B)
}

// Users are the senders whose packets the server takes.
func (s Server) Users() portion.Set { return portion.Set{Permit: s.Portions, Deny: s.Deny} }

// Static reports whether the service itself says which server has which portions.
func (s Service) Static() bool {
	for _, server := range s.Servers {
		if len(server.Portions) > 0 {
			return true
		}
	}
	return false
}

// VIPs are the service's addresses, the IPv4 one first.
func (s Service) VIPs() []netip.Addr {
	if s.VIP6.IsValid() {
		return []netip.Addr{s.VIP, s.VIP6}
	}
	return []netip.Addr{s.VIP}
}

// Ends are the service's addresses with its TCP ports.
func (s Service) Ends() []netip.AddrPort {
	var out []netip.AddrPort
	for _, vip := range s.VIPs() {
		for _, p := range s.Ports {
			if p.Proto == "tcp" {
				out = append(out, netip.AddrPortFrom(vip, p.Number))
			}
		}
	}
	return out
}

// Destination is what a server knows the service's packets by: the group, where it has one, else the VIP.
func (s Service) Destination() netip.Addr {
	if s.Group.IsValid() {
		return s.Group
	}
	return s.VIP
}

// Rules are what the service says of how its users are shared out.
func (s Service) Rules() policy.Rules {
	return policy.Rules{Policy: s.Policy, Slots: s.Slots, Balance: s.Balance.OrDefault(), Prefixes: s.Prefixes}
}
