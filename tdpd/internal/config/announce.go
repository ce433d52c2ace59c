package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/flowspec"
)

// BGPAnnounce is [bgp.announce]: which VIPs are announced, and how they come and go.
type BGPAnnounce struct {
	VIPs        []netip.Prefix  `toml:"vips"`
	Covers      []netip.Prefix  `toml:"covers"`
	Hosts       bool            `toml:"hosts"`
	Server      bool            `toml:"server"`
	Prepend     int             `toml:"prepend"`
	MED         *uint32         `toml:"med"`
	Communities []bgp.Community `toml:"communities"`
	Settle      time.Duration   `toml:"settle"`
	Patience    time.Duration   `toml:"patience"`
	FlapFirst   time.Duration   `toml:"flap_first"`
	FlapMax     time.Duration   `toml:"flap_max"`
	FlapForget  time.Duration   `toml:"flap_forget"`
}

// BGPFlowSpec is [bgp.flowspec]: rules for upstream routers.
type BGPFlowSpec struct {
	Most   int            `toml:"most"`
	Nested bool           `toml:"nested"`
	Within []netip.Prefix `toml:"within"`
	VRFs   []BGPVRF       `toml:"vrfs"`
}

// BGPVRF is a table that leads to a server.
type BGPVRF struct {
	Server netip.Addr `toml:"server"`
	Target string     `toml:"route_target"`
}

func defaultAnnounce() BGPAnnounce {
	return BGPAnnounce{
		Hosts: true, Communities: []bgp.Community{bgp.GracefulShutdown}, Settle: 5 * time.Second, Patience: 30 * time.Second,
		FlapFirst: time.Second, FlapMax: time.Minute, FlapForget: time.Minute,
	}
}

// Announcing is what decides about it.
func (a BGPAnnounce) Announcing() announcing.Config {
	return announcing.Config{
		Server: a.Server, Covers: a.Covers, Soft: announcing.Soft{Prepend: a.Prepend, MED: a.MED, Communities: a.Communities},
		Settle: a.Settle, Patience: a.Patience, Flaps: announcing.Flaps{First: a.FlapFirst, Max: a.FlapMax, Forget: a.FlapForget},
	}
}

// Config is what makes rules.
func (f BGPFlowSpec) Config() (flowspec.Config, error) {
	out := flowspec.Config{Most: f.Most, Nested: f.Nested, Within: f.Within, VRFs: map[netip.Addr]bgp.RouteTarget{}}
	for _, v := range f.VRFs {
		t, err := parseTarget(v.Target)
		if err != nil {
			return out, fmt.Errorf("bgp.flowspec.vrfs: server %v: %w", v.Server, err)
		}
		out.VRFs[v.Server] = t
	}
	return out, nil
}

// parseTarget reads a route target, such as 65001:80.
func parseTarget(text string) (t bgp.RouteTarget, err error) {
	as, value, _ := strings.Cut(text, ":")
	a, errA := strconv.ParseUint(as, 10, 32)
	v, errV := strconv.ParseUint(value, 10, 32)
	if errA != nil || errV != nil || a > 65535 && v > 65535 {
		return t, fmt.Errorf("route_target %q: want 65001:80; behind an AS of four octets 0 to 65535", text)
	}
	return bgp.RouteTarget{AS: uint32(a), Value: uint32(v)}, nil
}

func (a BGPAnnounce) check(bad func(string, ...any)) {
	for _, p := range a.VIPs {
		if !p.IsValid() || p != p.Masked() {
			bad("bgp.announce.vips: %v: want prefixes without bits behind their length", p)
		}
	}
	if err := a.Announcing().Check(); err != nil {
		bad("bgp.announce: %w", err)
	}
}

// flowRulesMost bounds bgp.flowspec.most: so many are compiled in a tenth of a second or two.
const flowRulesMost = 65536

func (f BGPFlowSpec) check(bad func(string, ...any)) {
	if f.Most < 0 || f.Most > flowRulesMost {
		bad("bgp.flowspec.most is %d: want 0 to %d", f.Most, flowRulesMost)
	}
	for _, p := range f.Within {
		if !p.IsValid() || p != p.Masked() {
			bad("bgp.flowspec.within: %v: want prefixes without bits behind their length", p)
		}
	}
	seen := map[netip.Addr]bool{}
	for _, v := range f.VRFs {
		if !unicast(v.Server) || seen[v.Server] {
			bad("bgp.flowspec.vrfs: server %v: want unicast addresses, each once", v.Server)
		}
		seen[v.Server] = true
	}
	if _, err := f.Config(); err != nil {
		bad("%w", err)
	}
}
