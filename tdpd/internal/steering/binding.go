// Package steering decides which bindings of users to servers hold at this router. Directors' routers vouch for them, routers pass them on
// to those upstream; here they come in, and out comes what each service's users are steered by, and what is to be told on. It is pure: no
// sockets, no clock, no log. Not safe for concurrent use.
package steering

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/steer"
)

// Router is a router's LDP identifier, as an IPv4 address.
type Router = netip.Addr

// Binding is what a director's router says of a service: whose users are to be sent along which server's tree (claim 15). It is a whole, and
// replaces what the same voucher said before.
type Binding struct {
	Service    string           // 1 to 63 bytes
	VIPs       []netip.Addr     // unicast, 1 to MaxVIPs, sorted
	Voucher    Router           // the director's router
	Sequence   uint64           // of the voucher's; a higher one replaces a lower one
	Allocation alloc.Allocation // with the servers' addresses; without cells it withdraws, unless
	Nobody     bool             // nobody serves, in the allocation's epoch
	Refuse     Refusal          // what users get whom nobody serves
	Users      []User           // exceptions, sorted by address
	Others     []Server         // of exceptions, that the allocation does not name; sorted by name
	UsersOnly  bool             // these alone are steered, all others go by the route: neither Nobody, Reactive nor Split
	Split      steer.Split      // whose users are told apart by source port, too: neither exceptions nor fixed portions are for these
	Lifetime   time.Duration    // MinLifetime to MaxLifetime: until then it holds without another word
	Hold       time.Duration    // 0 to MaxLifetime: for so long it holds when the voucher is gone
	Reactive   bool             // routers upstream send on by its tree who is told to be active, and all others by the route
	Path       []Router         // who passed it on, the voucher first; at most MaxPath
}

// Refusal is what users get whom nobody serves.
type Refusal uint8

// Refusals.
const (
	Drop        Refusal = iota // nothing
	Unreachable                // an ICMP error
	Reset                      // of TCP a reset, of the rest an ICMP error
)

// User is an exception: the one user goes to a server, whatever the allocation says.
type User struct {
	Address netip.Addr
	Server  string // of the allocation's, or of Others
}

// Server is one that owns nobody.
type Server struct {
	Name    string
	Address netip.Addr
}

// Address is a server's; invalid: it has none here.
func (b Binding) Address(server string) netip.Addr {
	if i, ok := slices.BinarySearchFunc(b.Others, server, func(o Server, name string) int { return cmp.Compare(o.Name, name) }); ok {
		return b.Others[i].Address
	}
	return b.Allocation.Address(server)
}

// Bounds of a binding.
const (
	MaxVIPs     = 16
	MaxPath     = 8
	MaxUsers    = 1 << 20
	MaxOthers   = 1024
	MinLifetime = time.Second
	MaxLifetime = 24 * time.Hour
	maxName     = 63
)

// Withdraws says whether the voucher vouches for the service no more.
func (b Binding) Withdraws() bool { return b.Allocation.Zero() && !b.Nobody }

// check returns an error for what nobody may say.
func (b Binding) check() error {
	switch {
	case b.Service == "" || len(b.Service) > maxName:
		return fmt.Errorf("a service's name has 1 to %d bytes, not %d", maxName, len(b.Service))
	case !b.Voucher.Is4():
		return fmt.Errorf("voucher %v is no router's identifier", b.Voucher)
	case len(b.Path) == 0 || len(b.Path) > MaxPath || b.Path[0] != b.Voucher:
		return fmt.Errorf("path %v: want 1 to %d routers, the voucher first", b.Path, MaxPath)
	}
	if b.Withdraws() {
		return nil
	}
	if b.Lifetime < MinLifetime || b.Lifetime > MaxLifetime || b.Hold < 0 || b.Hold > MaxLifetime {
		return fmt.Errorf("lifetime %v and hold %v: want %v to %v, and at most as much", b.Lifetime, b.Hold, MinLifetime, MaxLifetime)
	}
	if b.Refuse > Reset {
		return fmt.Errorf("refusal %d: want at most %d", b.Refuse, Reset)
	}
	if err := b.Split.Check(); err != nil {
		return fmt.Errorf("split: %w", err)
	}
	if b.UsersOnly && (b.Nobody || b.Reactive || len(b.Split) > 0) {
		return errors.New("users alone are steered: nothing can be said of all others")
	}
	return errors.Join(b.checkVIPs(), b.checkServers(), b.checkOthers(), b.checkUsers())
}

// thisNetwork is nobody's (RFC 1122 section 3.2.1.3).
var thisNetwork = netip.MustParsePrefix("0.0.0.0/8")

func (b Binding) checkVIPs() error {
	if len(b.VIPs) == 0 || len(b.VIPs) > MaxVIPs {
		return fmt.Errorf("%d VIPs, want 1 to %d", len(b.VIPs), MaxVIPs)
	}
	for i, v := range b.VIPs {
		if !v.IsValid() || v.Is4In6() || v.Zone() != "" || v.IsMulticast() || v.IsLoopback() || thisNetwork.Contains(v) || v.IsUnspecified() {
			return fmt.Errorf("VIP %v is no unicast address of a service", v)
		}
		if i > 0 && v.Compare(b.VIPs[i-1]) <= 0 {
			return fmt.Errorf("VIPs are not sorted and distinct at %v", v)
		}
	}
	return nil
}

func (b Binding) checkServers() error {
	if b.Nobody {
		if !b.Allocation.Zero() {
			return errors.New("nobody serves, but servers are allocated")
		}
		return nil
	}
	if err := b.Allocation.Check(); err != nil {
		return err
	}
	for _, name := range b.Allocation.Used() {
		if !b.Allocation.Address(name).IsValid() {
			return fmt.Errorf("server %s has no address, and so no tree", name)
		}
	}
	return nil
}

func (b Binding) checkOthers() error {
	if len(b.Others) > MaxOthers {
		return fmt.Errorf("%d servers beside the allocation's, at most %d", len(b.Others), MaxOthers)
	}
	for i, o := range b.Others {
		_, allocated := slices.BinarySearch(b.Allocation.Servers, o.Name)
		if o.Name == "" || len(o.Name) > maxName || allocated || i > 0 && o.Name <= b.Others[i-1].Name {
			return fmt.Errorf("server %q beside the allocation's: want names of 1 to %d bytes, sorted, each once", o.Name, maxName)
		}
		if a := o.Address; !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("server %s at %v: to no such address is a tree", o.Name, a)
		}
	}
	return nil
}

func (b Binding) checkUsers() error {
	if len(b.Users) > MaxUsers {
		return fmt.Errorf("%d users, at most %d", len(b.Users), MaxUsers)
	}
	for i, u := range b.Users {
		if i > 0 && u.Address.Compare(b.Users[i-1].Address) <= 0 {
			return fmt.Errorf("users are not sorted and distinct at %v", u.Address)
		}
		if !u.Address.Is4() {
			return fmt.Errorf("user %v: exceptions are of IPv4", u.Address)
		}
		if !b.Address(u.Server).IsValid() {
			return fmt.Errorf("user %v goes to %q, which is no server with an address", u.Address, u.Server)
		}
	}
	return nil
}

// says tells whether two bindings steer alike.
func (b Binding) says(o Binding) bool {
	return b.Allocation.Epoch == o.Allocation.Epoch && b.Allocation.Same(o.Allocation) && slices.Equal(b.Allocation.Addresses, o.Allocation.Addresses) &&
		slices.Equal(b.VIPs, o.VIPs) && slices.Equal(b.Users, o.Users) && slices.Equal(b.Others, o.Others) && b.Nobody == o.Nobody && b.Refuse == o.Refuse &&
		b.Reactive == o.Reactive && b.UsersOnly == o.UsersOnly && slices.Equal(b.Split, o.Split)
}

// contradicts tells whether two vouchers cannot both be right: of an epoch there is one allocation. The rest comes of the service, or of
// servers that pin users, without an epoch, and directors hear of it one after the other.
func (b Binding) contradicts(o Binding) bool {
	o.VIPs, o.Refuse, o.Reactive, o.Split, o.Users, o.Others, o.UsersOnly = b.VIPs, b.Refuse, b.Reactive, b.Split, b.Users, b.Others, b.UsersOnly
	return b.Allocation.Epoch == o.Allocation.Epoch && !b.says(o)
}
