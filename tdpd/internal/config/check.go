package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/tdpd/internal/fastpath"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// TunnelUDP is the one kind of tunnel that there is: MPLS in UDP (RFC 7510).
const TunnelUDP = "udp"

const tunnelMTULeast = 576

// Where labels are forwarded.
const (
	TablesAuto   = "auto"
	TablesKernel = "kernel"
	TablesNone   = "none"
)

// What steers users: with UsersAuto the fast path, and marks in the kernel's tables, where there are these.
const (
	UsersAuto   = "auto"
	UsersFast   = "fast"
	UsersKernel = "kernel"
)

const (
	controlIndependent = "independent"
	controlOrdered     = "ordered"
	labelLast          = 1_048_574 // the highest that Linux can have
)

// Check finds what cannot work; the error has all of it.
func (c Config) Check() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if c.StateDir == "" {
		bad("state_dir is empty: name a directory")
	}
	if c.RuntimeDir == "" {
		bad("runtime_dir is empty: name a directory below /run")
	}
	c.checkAddresses(bad)
	c.checkInterfaces(bad)
	c.checkNeighbors(bad)
	c.checkTimes(bad)
	c.checkLabels(bad)
	c.checkLimits(bad)
	for _, a := range c.Servers.Addresses {
		if !unicast(a) {
			bad("servers.addresses: %v is no unicast address", a)
		}
	}
	if t := c.Servers.Tunnel; t != "" && t != TunnelUDP {
		bad("servers.tunnel %q: want %q, or none", t, TunnelUDP)
	}
	if l := c.Servers.Linger; l < 0 || l > 24*time.Hour {
		bad("servers.linger is %v: want 0s to 24h", l)
	}
	c.checkUsers(bad)
	c.checkForwarding(bad)
	c.checkBGP(bad)
	errs = append(errs, daemon.CheckRouterName(c.Name), c.Bus.Check("tdpd"), c.Metrics.Check(), c.Control.check())
	return errors.Join(errs...)
}

func (c Config) checkForwarding(bad func(string, ...any)) {
	f := c.Forwarding
	if f.Tables != TablesAuto && f.Tables != TablesKernel && f.Tables != TablesNone {
		bad("forwarding.tables %q: want %q, %q or %q", f.Tables, TablesAuto, TablesKernel, TablesNone)
	}
	if f.Tables == TablesNone && !f.Fast {
		bad("forwarding: without tables and without fast_path nothing is forwarded")
	}
	switch {
	case !slices.Contains([]string{UsersAuto, UsersFast, UsersKernel}, f.Users):
		bad("forwarding.users %q: want %q, %q or %q", f.Users, UsersAuto, UsersFast, UsersKernel)
	case f.Users == UsersFast && !f.Fast:
		bad("forwarding.users %q: set fast_path", f.Users)
	case f.Users == UsersKernel && f.Tables == TablesNone:
		bad("forwarding.users %q: the kernel's tables steer: set tables = %q", f.Users, TablesKernel)
	}
	if f.Marks() {
		if err := f.Marking().Check(); err != nil {
			bad("forwarding.%w", err)
		}
	}
	if !f.Fast && (c.UsesTunnels() || len(f.TunnelsFrom) > 0) {
		bad("tunnels (tunnel, forwarding.tunnels_from): the kernel's tables have none: set forwarding.fast_path")
	}
	if len(f.TunnelsFrom) > fastpath.MaxSources {
		bad("forwarding.tunnels_from has %d prefixes: want %d at most", len(f.TunnelsFrom), fastpath.MaxSources)
	}
	for _, p := range f.TunnelsFrom {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			bad("forwarding.tunnels_from: %v: want prefixes without bits behind their length", p)
		}
	}
	if n := f.TunnelMTU; n != 0 && (n < tunnelMTULeast || n > 65535) {
		bad("forwarding.tunnel_mtu is %d: want %d to 65535 bytes, or 0 for that of the interface", n, tunnelMTULeast)
	}
	for i, name := range f.Edge {
		if name == "" || slices.Contains(f.Edge[:i], name) || slices.Contains(c.Interfaces, name) {
			bad("forwarding.edge: %q: want interfaces toward users, each once, none of those that LDP runs on", name)
		}
	}
	if (f.Fast || f.Marks()) && f.BPFFS == "" {
		bad("forwarding.bpffs is empty: name a directory on a bpffs")
	}
}

func (c Config) checkUsers(bad func(string, ...any)) {
	for i, r := range c.Users.Upstream {
		if !r.Is4() || !unicast(r) || r == c.RouterID || slices.Contains(c.Users.Upstream[:i], r) {
			bad("users.upstream: %v: want router ids of neighbors, each once", r)
		}
	}
	if a := c.Users.Active; a < time.Second || a > 24*time.Hour {
		bad("users.active is %v: want 1s to 24h", a)
	}
	for _, a := range c.Users.Accept {
		if !a.From.Is4() || !unicast(a.From) || a.From == c.RouterID {
			bad("users.accept: from %v: want a neighbor's router id", a.From)
		}
		for _, p := range a.VIPs {
			if !p.IsValid() || p != p.Masked() {
				bad("users.accept: from %v: vips: %v is no prefix", a.From, p)
			}
		}
	}
}

func unicast(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.Is4In6()
}

func (c Config) checkAddresses(bad func(string, ...any)) {
	if !c.RouterID.Is4() || !unicast(c.RouterID) {
		bad("router_id %v: want an IPv4 address of this router, on lo best", c.RouterID)
	}
	if !c.Transport4.IsValid() && !c.Transport6.IsValid() {
		bad("neither transport_ipv4 nor transport_ipv6: sessions need an address of this router")
	}
	if a := c.Transport4; a.IsValid() && (!a.Is4() || !unicast(a)) {
		bad("transport_ipv4 %v: want an IPv4 unicast address of this router", a)
	}
	if a := c.Transport6; a.IsValid() && (!a.Is6() || !unicast(a)) {
		bad("transport_ipv6 %v: want a global IPv6 address of this router (RFC 7552 section 6.1)", a)
	}
	if c.Prefer != "ipv4" && c.Prefer != "ipv6" {
		bad(`prefer %q: want "ipv4" or "ipv6"`, c.Prefer)
	}
}

func (c Config) checkInterfaces(bad func(string, ...any)) {
	for i, name := range c.Interfaces {
		if name == "" || len(name) > 15 {
			bad("interfaces: name %q: want 1 to 15 bytes", name)
		}
		if slices.Contains(c.Interfaces[:i], name) {
			bad("interfaces: %s is there twice", name)
		}
	}
	if len(c.Interfaces) == 0 && len(c.Targets()) == 0 && c.Servers.Tunnel == "" && len(c.Hello.AcceptTargeted) == 0 {
		bad("no interfaces, and no targeted neighbor: there is nobody to exchange labels with")
	}
}

func (c Config) checkNeighbors(bad func(string, ...any)) {
	for i, n := range c.Neighbors {
		if n.RouterID.IsValid() && !n.RouterID.Is4() {
			bad("neighbor %d: router_id %v: want an LSR id, written as an IPv4 address", i+1, n.RouterID)
		}
		if n.RouterID.IsValid() && n.RouterID == c.RouterID {
			bad("neighbor %d: router_id %v is this router's own", i+1, n.RouterID)
		}
		if n.Targeted.IsValid() && !unicast(n.Targeted) {
			bad("neighbor %d: targeted %v is no unicast address", i+1, n.Targeted)
		}
		if n.Tunnel != "" && n.Tunnel != TunnelUDP {
			bad("neighbor %d: tunnel %q: want %q, or none", i+1, n.Tunnel, TunnelUDP)
		}
		if n.Tunnel != "" && !n.Targeted.IsValid() {
			bad("neighbor %d: tunnel without targeted: to which address?", i+1)
		}
		if n.SecretFile != "" && !n.RouterID.IsValid() {
			bad("neighbor %d: md5_secret_file without router_id: whose secret is it?", i+1)
		}
		if slices.ContainsFunc(c.Neighbors[:i], func(o Neighbor) bool { return o.RouterID.IsValid() && o.RouterID == n.RouterID }) {
			bad("neighbor %v is there twice", n.RouterID)
		}
	}
}

func (c Config) checkTimes(bad func(string, ...any)) {
	seconds := func(name string, d, least, most time.Duration) {
		if d < least || d > most || d%time.Second != 0 {
			bad("%s is %v: want whole seconds, %v to %v", name, d, least, most)
		}
	}
	seconds("hello.link_hold", c.Hello.LinkHold, 3*time.Second, 0xffff*time.Second)
	seconds("hello.targeted_hold", c.Hello.TargetedHold, 3*time.Second, 0xffff*time.Second)
	seconds("session.keepalive", c.Session.KeepAlive, 3*time.Second, 0xffff*time.Second)
	seconds("restart.reconnect", c.Restart.Reconnect, 0, time.Hour)
	seconds("restart.recovery", c.Restart.Recovery, 0, time.Hour)
	seconds("restart.max_reconnect", c.Restart.MaxReconnect, time.Second, time.Hour)
	seconds("restart.max_recovery", c.Restart.MaxRecovery, time.Second, time.Hour)
	if n := c.Session.MaxPDU; n < 256 || n > 0xffff {
		bad("session.max_pdu is %d: want 256 to 65535 bytes", n)
	}
	if n := c.Session.PathLimit; n < 1 || n > 255 {
		bad("session.path_vector_limit is %d: want 1 to 255", n)
	}
	if n := c.Session.HopLimit; n < 1 || n > 255 {
		bad("session.hop_count_limit is %d: want 1 to 255", n)
	}
}

func (c Config) checkLimits(bad func(string, ...any)) {
	for _, l := range []struct {
		name    string
		n, most int
	}{
		{"bindings", c.Limits.Bindings, 10_000_000}, {"all_bindings", c.Limits.AllBindings, 10_000_000},
		{"addresses", c.Limits.Addresses, 100_000}, {"adjacencies", c.Limits.Adjacencies, 100_000},
	} {
		if l.n < 1 || l.n > l.most {
			bad("limits.%s is %d: want 1 to %d", l.name, l.n, l.most)
		}
	}
}

func (c Config) checkLabels(bad func(string, ...any)) {
	l := c.Labels
	if l.First < int(wire.LabelFirst) || l.Last > labelLast || l.First > l.Last {
		bad("labels %d to %d: choose a range within %d to %d", l.First, l.Last, wire.LabelFirst, labelLast)
	}
	if l.Control != controlIndependent && l.Control != controlOrdered {
		bad("labels.control %q: want %q or %q", l.Control, controlIndependent, controlOrdered)
	}
	if l.RouteProtocol < 1 || l.RouteProtocol > 255 {
		bad("labels.route_protocol %d: want 1 to 255, and a number that nobody else's routes have", l.RouteProtocol)
	}
	for name, rules := range map[string][]Rule{"allocate": l.Allocate, "advertise": l.Advertise, "accept": l.Accept} {
		for i, r := range rules {
			switch {
			case !r.Prefix.IsValid() || r.Prefix != r.Prefix.Masked():
				bad("labels.%s rule %d: prefix %v: want one without bits behind its length", name, i+1, r.Prefix)
			case r.Least < 0 || r.Most < 0 || r.Most > r.Prefix.Addr().BitLen() || r.Most != 0 && r.Least > r.Most:
				bad("labels.%s rule %d: lengths %d to %d fit no prefix", name, i+1, r.Least, r.Most)
			case name == "allocate" && r.Peer.IsValid():
				bad("labels.allocate rule %d: peer: labels are allocated once for all peers", i+1)
			}
		}
	}
}
