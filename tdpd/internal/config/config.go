// Package config is tdpd's configuration file, tdpd.toml.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/tdpd/internal/discovery"
	"github.com/manycast/manycast/tdpd/internal/fastpath"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/marking"
	"github.com/manycast/manycast/tdpd/internal/steering"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Config is the whole file; tdpd.toml says what each key means.
type Config struct {
	StateDir   string                `toml:"state_dir"`
	RuntimeDir string                `toml:"runtime_dir"`
	Name       string                `toml:"name"`
	RouterID   netip.Addr            `toml:"router_id"`
	Transport4 netip.Addr            `toml:"transport_ipv4"`
	Transport6 netip.Addr            `toml:"transport_ipv6"`
	Prefer     string                `toml:"prefer"`
	Interfaces []string              `toml:"interfaces"`
	Log        daemon.LogSection     `toml:"log"`
	Hello      Hello                 `toml:"hello"`
	Session    Session               `toml:"session"`
	Limits     Limits                `toml:"limits"`
	Neighbors  []Neighbor            `toml:"neighbor"`
	Labels     Labels                `toml:"labels"`
	Servers    Servers               `toml:"servers"`
	Restart    Restart               `toml:"restart"`
	Users      Users                 `toml:"users"`
	Forwarding Forwarding            `toml:"forwarding"`
	Control    Control               `toml:"control"`
	BGP        BGP                   `toml:"bgp"`
	Bus        daemon.BusSection     `toml:"bus"`
	Metrics    daemon.MetricsSection `toml:"metrics"`
}

// Hello is [hello].
type Hello struct {
	LinkHold       time.Duration  `toml:"link_hold"`
	TargetedHold   time.Duration  `toml:"targeted_hold"`
	AcceptTargeted []netip.Prefix `toml:"accept_targeted"`
	GTSM           bool           `toml:"gtsm"`
}

// Session is [session].
type Session struct {
	KeepAlive     time.Duration `toml:"keepalive"`
	MaxPDU        int           `toml:"max_pdu"`
	LoopDetection bool          `toml:"loop_detection"`
	PathLimit     int           `toml:"path_vector_limit"`
	HopLimit      int           `toml:"hop_count_limit"`
}

// Limits is [limits].
type Limits struct {
	Bindings    int `toml:"bindings"`
	AllBindings int `toml:"all_bindings"`
	Addresses   int `toml:"addresses"`
	Adjacencies int `toml:"adjacencies"`
}

// Neighbor is one [[neighbor]].
type Neighbor struct {
	RouterID   netip.Addr `toml:"router_id"`
	Targeted   netip.Addr `toml:"targeted"`
	Tunnel     string     `toml:"tunnel"`
	SecretFile string     `toml:"md5_secret_file"`
}

// Labels is [labels].
type Labels struct {
	First         int    `toml:"first"`
	Last          int    `toml:"last"`
	Control       string `toml:"control"`
	ExplicitNull  bool   `toml:"explicit_null"`
	RouteProtocol int    `toml:"route_protocol"`
	Allocate      []Rule `toml:"allocate"`
	Advertise     []Rule `toml:"advertise"`
	Accept        []Rule `toml:"accept"`
}

// Servers is [servers].
type Servers struct {
	Addresses []netip.Addr  `toml:"addresses"`
	FromBus   bool          `toml:"from_bus"`
	Linger    time.Duration `toml:"linger"`
	Tunnel    string        `toml:"tunnel"`
}

// Restart is [restart].
type Restart struct {
	Reconnect    time.Duration `toml:"reconnect"`
	Recovery     time.Duration `toml:"recovery"`
	Helper       bool          `toml:"helper"`
	MaxReconnect time.Duration `toml:"max_reconnect"`
	MaxRecovery  time.Duration `toml:"max_recovery"`
}

// Forwarding is [forwarding].
type Forwarding struct {
	Tables      string         `toml:"tables"`
	Fast        bool           `toml:"fast_path"`
	Edge        []string       `toml:"edge"`
	Users       string         `toml:"users"`
	Mark        uint32         `toml:"users_mark"`
	MarkMask    uint32         `toml:"users_mark_mask"`
	Table       uint32         `toml:"users_table"`
	Priority    uint32         `toml:"users_priority"`
	BPFFS       string         `toml:"bpffs"`
	TunnelsFrom []netip.Prefix `toml:"tunnels_from"`
	TunnelMTU   int            `toml:"tunnel_mtu"`
}

// On is what is there on a kernel with MPLS, or without: there tables are none where the fast path forwards.
func (f Forwarding) On(hasMPLS bool) Forwarding {
	if f.Tables == TablesAuto {
		f.Tables = TablesKernel
		if !hasMPLS && f.Fast && f.Users != UsersKernel {
			f.Tables = TablesNone
		}
	}
	return f
}

// Marks says whether users are steered by marks and tables of the kernel.
func (f Forwarding) Marks() bool {
	return len(f.Edge) > 0 && f.Tables != TablesNone && f.Users != UsersFast
}

// FastUsers says whether the fast path steers users.
func (f Forwarding) FastUsers() bool { return f.Fast && f.Users != UsersKernel }

// Marking is what marks users.
func (f Forwarding) Marking() marking.Config {
	return marking.Config{
		Edge: f.Edge, Pins: marking.PinsBelow(f.BPFFS), Mark: f.Mark, Mask: f.MarkMask, Table: f.Table, Priority: f.Priority,
	}
}

// Sides are the interfaces that the fast path is on.
func (c Config) Sides() map[string]fastpath.Side {
	sides := map[string]fastpath.Side{}
	for _, name := range c.Interfaces {
		sides[name] = fastpath.Core
	}
	for _, name := range c.Forwarding.Edge {
		sides[name] = fastpath.Edge
	}
	return sides
}

// Users is [users]: bindings of users to servers.
type Users struct {
	Upstream []netip.Addr    `toml:"upstream"`
	VIPs     []netip.Prefix  `toml:"vips"`
	Active   time.Duration   `toml:"active"`
	Accept   []UsersAccepted `toml:"accept"`
}

// Control is [control]: the control channel, which tdpd hears and says nothing on, and where the control group's private key is.
type Control struct {
	control.ListenConfig
	Member string `toml:"member"` // file of this router's own key pair, for keys that come by the bus
	Keys   string `toml:"keys"`   // directory
}

func (c Control) check() error {
	err := c.Check()
	if c.Enabled() && c.Keys == "" {
		err = errors.Join(err, errors.New("control.keys is empty: name the directory of the control group's private key"))
	}
	return err
}

// UsersAccepted is one [[users.accept]].
type UsersAccepted struct {
	From netip.Addr     `toml:"from"`
	VIPs []netip.Prefix `toml:"vips"`
}

// Trust is from whom bindings of users are taken.
func (u Users) Trust() steering.Trust {
	var t steering.Trust
	for _, a := range u.Accept {
		t = append(t, steering.Rule{From: a.From, VIPs: a.VIPs})
	}
	return t
}

// MayBind returns an error for a VIP that directors may not bind at this router.
func (u Users) MayBind(vips []netip.Addr) error {
	for _, v := range vips {
		if len(u.VIPs) > 0 && !slices.ContainsFunc(u.VIPs, func(p netip.Prefix) bool { return p.Contains(v) }) {
			return fmt.Errorf("VIP %v may not be bound at this router: users.vips does not name it", v)
		}
	}
	return nil
}

// Used says whether this router takes part in bindings of users at all.
func (u Users) Used() bool { return len(u.Upstream)+len(u.Accept) > 0 }

// Default is what holds where the file says nothing.
func Default() Config {
	return Config{
		StateDir: "/var/lib/manycast/tdpd", RuntimeDir: "/run/manycast/tdpd",
		Name:    daemon.RouterName("tdpd"),
		Prefer:  "ipv6",
		Log:     daemon.LogSection{Level: "info"},
		Hello:   Hello{LinkHold: wire.DefaultLinkHoldTime, TargetedHold: wire.DefaultTargetedHoldTime, GTSM: true},
		Session: Session{KeepAlive: 180 * time.Second, MaxPDU: wire.DefaultMaxPDULength, PathLimit: 32, HopLimit: 64},
		Limits:  Limits{Bindings: 100_000, AllBindings: 1_000_000, Addresses: 1024, Adjacencies: 1024},
		Labels: Labels{
			First: 16, Last: 1_048_574, Control: controlIndependent, RouteProtocol: 1, Allocate: []Rule{{Prefix: anyV4, Least: 1}, {Prefix: anyV6, Least: 1}},
		},
		Users: Users{Active: 5 * time.Minute},
		Control: Control{
			ListenConfig: control.DefaultListenConfig(), Member: "/var/lib/manycast/tdpd/member.key", Keys: "/var/lib/manycast/tdpd/groups",
		},
		Servers: Servers{FromBus: true, Linger: 5 * time.Minute},
		Forwarding: Forwarding{
			Tables: TablesAuto, BPFFS: "/sys/fs/bpf/manycast/tdpd",
			Users: UsersAuto, Mark: 0x5400_0000, MarkMask: 0xff00_0fff, Table: 77000, Priority: 7700,
		},
		BGP: BGP{Port: 179, BFDD: bfdd, Most: 100_000, Restart: 2 * time.Minute, Deferral: 10 * time.Second, Announce: defaultAnnounce()},
		Restart: Restart{
			Reconnect: 2 * time.Minute, Recovery: 2 * time.Minute, Helper: true, MaxReconnect: 2 * time.Minute, MaxRecovery: 2 * time.Minute,
		},
	}
}

// Load reads and checks a file; unknown keys are errors.
func Load(path string) (Config, error) {
	c := Default()
	if err := daemon.Load(path, &c); err != nil {
		return Config{}, err
	}
	if c.Transport4 == (netip.Addr{}) && c.Transport6 == (netip.Addr{}) {
		c.Transport4 = c.RouterID
	}
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// ID is this router's LDP identifier, of the platform-wide label space.
func (c Config) ID() wire.Identifier { return wire.Identifier{LSR: c.RouterID.As4()} }

// Discovery is what discovery has to know.
func (c Config) Discovery() discovery.Config {
	return discovery.Config{
		ID: c.ID(), Transport4: c.Transport4, Transport6: c.Transport6, Prefer: c.Preference(), GTSM: c.Hello.GTSM,
		LinkHold: c.Hello.LinkHold, TargetedHold: c.Hello.TargetedHold, Accept: c.acceptsTargeted,
		MaxAdjacencies: c.Limits.Adjacencies,
	}
}

// Self4 is the IPv4 address that this router speaks by where it is not LDP that speaks.
func (c Config) Self4() netip.Addr {
	if c.Transport4.IsValid() {
		return c.Transport4
	}
	return c.RouterID
}

// Preference is the family of sessions with dual-stack peers.
func (c Config) Preference() wire.TransportPreference {
	if c.Prefer == "ipv4" {
		return wire.PreferIPv4
	}
	return wire.PreferIPv6
}

func (c Config) acceptsTargeted(from netip.Addr) bool {
	for _, p := range c.Hello.AcceptTargeted {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// Targets are the addresses that targeted hellos are sent to.
func (c Config) Targets() (out []netip.Addr) {
	for _, n := range c.Neighbors {
		if n.Targeted.IsValid() {
			out = append(out, n.Targeted)
		}
	}
	return out
}

// Tunnels are the configured neighbors that packets may be sent to in UDP, by the addresses that targeted hellos are sent to.
func (c Config) Tunnels() (out []netip.Addr) {
	for _, n := range c.Neighbors {
		if n.Tunnel == TunnelUDP {
			out = append(out, n.Targeted)
		}
	}
	return out
}

// UsesTunnels says whether packets may be sent in UDP at all.
func (c Config) UsesTunnels() bool { return len(c.Tunnels()) > 0 || c.Servers.Tunnel == TunnelUDP }

// secretMax is how long a TCP MD5 key may be (TCP_MD5SIG_MAXKEYLEN), in bytes.
const secretMax = 80

// Secrets reads the TCP MD5 secrets of neighbors, by their router ids.
func (c Config) Secrets() (map[netip.Addr]string, error) {
	all := map[netip.Addr]string{}
	for _, n := range c.Neighbors {
		if n.SecretFile == "" {
			continue
		}
		secret, err := keyfile.ReadLine(n.SecretFile, secretMax)
		if err != nil {
			return nil, fmt.Errorf("neighbor %v: md5_secret_file: %w", n.RouterID, err)
		}
		all[n.RouterID] = secret
	}
	return all, nil
}

// LabelsConfig is what the label information base has to know.
func (c Config) LabelsConfig() labels.Config {
	l := c.Labels
	return labels.Config{
		LSR: c.ID().LSR, Transports: []netip.Addr{c.Transport4, c.Transport6}, First: wire.Label(l.First), Last: wire.Label(l.Last), Ordered: l.Control == controlOrdered, ExplicitNull: l.ExplicitNull,
		LoopDetection: c.Session.LoopDetection, PathLimit: uint8(c.Session.PathLimit), HopLimit: uint8(c.Session.HopLimit),
		MaxBindings: c.Limits.Bindings, AllBindings: c.Limits.AllBindings, MaxAddresses: c.Limits.Addresses,
		MaxReconnect: c.Restart.MaxReconnect, MaxRecovery: c.Restart.MaxRecovery, NoHelper: !c.Restart.Helper,
		Allocate:  func(p netip.Prefix) bool { return passes(l.Allocate, p, netip.Addr{}) },
		Advertise: func(p netip.Prefix, to wire.Identifier) bool { return passes(l.Advertise, p, netip.AddrFrom4(to.LSR)) },
		Accept:    func(p netip.Prefix, from wire.Identifier) bool { return passes(l.Accept, p, netip.AddrFrom4(from.LSR)) },
	}
}

// FTSession is what peers are told of this router's restarts; nil: it does not keep its labels over one (RFC 3478 section 2).
// recovery is how long what it has kept will last.
func (r Restart) FTSession(recovery time.Duration) *wire.FTSession {
	if r.Reconnect == 0 {
		if !r.Helper {
			return nil
		}
		return &wire.FTSession{LearnFromNetwork: true} // it helps others
	}
	return &wire.FTSession{LearnFromNetwork: true, ReconnectTimeout: r.Reconnect, RecoveryTime: max(0, recovery)}
}
