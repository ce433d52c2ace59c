package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgp/child"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
)

// BGP is [bgp].
type BGP struct {
	AS        uint32         `toml:"as"`
	RouterID  netip.Addr     `toml:"router_id"`
	Listen    []netip.Addr   `toml:"listen"`
	Port      int            `toml:"port"`
	API       string         `toml:"api"`
	BFDD      string         `toml:"bfdd"`
	VIPs      []netip.Prefix `toml:"vips"`
	Lab       bool           `toml:"lab"`
	Most      int            `toml:"most"`
	Restart   time.Duration  `toml:"restart"`
	LongLived time.Duration  `toml:"long_lived"`
	Deferral  time.Duration  `toml:"deferral"`
	Announce  BGPAnnounce    `toml:"announce"`
	FlowSpec  BGPFlowSpec    `toml:"flowspec"`
	Neighbors []BGPNeighbor  `toml:"neighbors"`
	Policies  []BGPPolicy    `toml:"policies"`
}

// BGPNeighbor is one [[bgp.neighbors]].
type BGPNeighbor struct {
	Address      netip.Addr    `toml:"address"`
	Port         int           `toml:"port"`
	AS           uint32        `toml:"as"`
	Local        netip.Addr    `toml:"local"`
	Passive      bool          `toml:"passive"`
	PasswordFile string        `toml:"password_file"`
	Hops         int           `toml:"hops"`
	GTSM         bool          `toml:"ttl_security"`
	Hold         time.Duration `toml:"hold"`
	Keepalive    time.Duration `toml:"keepalive"`
	ConnectRetry time.Duration `toml:"connect_retry"`
	BFD          *BGPBFD       `toml:"bfd"` // nil: none
	Families     []bgp.Family  `toml:"families"`
	MaxPrefixes  uint32        `toml:"max_prefixes"`
	Import       string        `toml:"import"`
	Export       string        `toml:"export"`
}

// BGPPolicy is one [[bgp.policies]].
type BGPPolicy struct {
	Name  string    `toml:"name"`
	Rules []BGPRule `toml:"rules"`
}

// BGPRule is one of its rules.
type BGPRule struct {
	Prefixes    []string        `toml:"prefixes"` // 10.0.0.0/8, 10.0.0.0/8 ge 16 le 24
	Communities []bgp.Community `toml:"communities"`
	Families    []bgp.Family    `toml:"families"`
	Deny        bool            `toml:"deny"`
	MED         *uint32         `toml:"med"`
	LocalPref   *uint32         `toml:"local_pref"`
	Prepend     int             `toml:"prepend"`
	Add         []bgp.Community `toml:"add_communities"`
	Remove      []bgp.Community `toml:"remove_communities"`
}

// Enabled says whether this router speaks BGP.
func (b BGP) Enabled() bool { return b.AS != 0 }

// Where a neighbor does not say.
const (
	bgpHold         = 9 * time.Second
	bgpConnectRetry = 5 * time.Second
	bgpMaxPrefixes  = 100_000 // 300 MB of the speaker's, and as many as are taken at most
)

// passwordMax is how long a TCP MD5 key may be, in bytes.
const passwordMax = secretMax

// withDefaults has what a neighbor does not say.
func (n BGPNeighbor) withDefaults() BGPNeighbor {
	if n.Hops == 0 {
		n.Hops = 1
	}
	if n.Hold == 0 {
		n.Hold = bgpHold
	}
	if n.Keepalive == 0 {
		n.Keepalive = (n.Hold / 3).Truncate(time.Second)
	}
	if n.ConnectRetry == 0 {
		n.ConnectRetry = bgpConnectRetry
	}
	if n.MaxPrefixes == 0 {
		n.MaxPrefixes = bgpMaxPrefixes
	}
	if len(n.Families) == 0 {
		n.Families = []bgp.Family{bgp.UnicastOf(netip.PrefixFrom(n.Address, 0))}
	}
	return n
}

// Desired is what the file wants of the speaker. It reads the files of passwords.
func (c Config) Desired() (bgp.Desired, error) {
	b := c.BGP
	d := bgp.Desired{
		AS: b.AS, RouterID: b.RouterID, Listen: b.Listen, Port: uint16(b.Port), Martians: bgppolicy.Martians(b.Lab),
		VIPs:    append(slices.Clip(b.VIPs), b.Announce.Covers...),
		Restart: bgp.Restart{Time: b.Restart, LongLived: b.LongLived, Deferral: b.Deferral},
	}
	if !d.RouterID.IsValid() {
		d.RouterID = c.RouterID
	}
	for _, n := range b.Neighbors {
		n = n.withDefaults()
		one := bgp.Neighbor{
			Address: n.Address, Port: uint16(n.Port), AS: n.AS, Local: n.Local, Passive: n.Passive, Hops: n.Hops, GTSM: n.GTSM, Hold: n.Hold, Keepalive: n.Keepalive,
			ConnectRetry: n.ConnectRetry, Families: n.Families, MaxPrefixes: n.MaxPrefixes, Import: n.Import, Export: n.Export,
		}
		if n.PasswordFile != "" {
			var err error
			if one.Password, err = keyfile.ReadLine(n.PasswordFile, passwordMax); err != nil {
				return bgp.Desired{}, fmt.Errorf("bgp neighbor %v: password_file: %w", n.Address, err)
			}
		}
		d.Neighbors = append(d.Neighbors, one)
	}
	for _, p := range b.Policies {
		policy, err := p.policy()
		if err != nil {
			return bgp.Desired{}, err
		}
		d.Policies = append(d.Policies, policy)
	}
	return d, nil
}

func (p BGPPolicy) policy() (bgp.Policy, error) {
	out := bgp.Policy{Name: p.Name}
	for _, r := range p.Rules {
		rule := bgp.PolicyRule{
			Communities: r.Communities, Families: r.Families, Deny: r.Deny,
			Set: bgp.PolicySet{MED: r.MED, LocalPref: r.LocalPref, Prepend: r.Prepend, Add: r.Add, Remove: r.Remove},
		}
		for _, text := range r.Prefixes {
			one, err := parseRange(text)
			if err != nil {
				return out, fmt.Errorf("bgp policy %s: %w", p.Name, err)
			}
			rule.Prefixes = append(rule.Prefixes, one)
		}
		out.Rules = append(out.Rules, rule)
	}
	return out, nil
}

// parseRange reads a prefix, with ge and le as in prefix lists of routers.
func parseRange(text string) (bgp.PrefixRange, error) {
	words := strings.Fields(text)
	var ge, le int
	for i := 1; i < len(words); i += 2 {
		to := map[string]*int{"ge": &ge, "le": &le}[words[i]]
		var err error
		if to != nil && i+1 < len(words) {
			*to, err = strconv.Atoi(words[i+1])
		}
		if to == nil || i+1 == len(words) || err != nil || *to <= 0 {
			return bgp.PrefixRange{}, fmt.Errorf("prefixes: %q: want 10.0.0.0/8, 10.0.0.0/8 le 24 or 10.0.0.0/8 ge 16 le 24", text)
		}
	}
	if len(words) == 0 {
		return bgp.PrefixRange{}, errors.New("prefixes: one is empty")
	}
	return bgppolicy.Range(words[0], ge, le)
}

func (c Config) checkBGP(bad func(string, ...any)) {
	b := c.BGP
	if !b.Enabled() {
		if len(b.Neighbors) > 0 || b.API != "" {
			bad("bgp without as: which AS is this router in?")
		}
		return
	}
	if b.RouterID.IsValid() && (!b.RouterID.Is4() || !unicast(b.RouterID)) {
		bad("bgp.router_id %v: want an IPv4 address of this router", b.RouterID)
	}
	if b.Port < 0 || b.Port > 65535 {
		bad("bgp.port is %d: want 1 to 65535, or 0 where nobody may connect", b.Port)
	}
	if b.API == "" {
		c.checkSpeaker(bad)
	} else if _, _, err := net.SplitHostPort(b.API); err != nil {
		bad("bgp.api %q: want host:port of a gobgpd's gRPC API", b.API)
	}
	if b.Most < 1 || b.Most > 10_000_000 {
		bad("bgp.most is %d: want 1 to 10000000", b.Most)
	}
	for _, p := range b.VIPs {
		if !p.IsValid() || p != p.Masked() {
			bad("bgp.vips: %v: want prefixes without bits behind their length", p)
		}
	}
	for _, t := range []struct {
		name        string
		d           time.Duration
		least, most time.Duration
	}{{"restart", b.Restart, 0, 4095 * time.Second}, {"long_lived", b.LongLived, 0, (1<<24 - 1) * time.Second}, {"deferral", b.Deferral, time.Second, time.Hour}} {
		if t.d < t.least || t.d > t.most || t.d%time.Second != 0 {
			bad("bgp.%s is %v: want whole seconds, %v to %v", t.name, t.d, t.least, t.most)
		}
	}
	if b.LongLived > 0 && b.Restart == 0 {
		bad("bgp.long_lived without restart: long-lived graceful restart goes on from graceful restart (RFC 9494)")
	}
	b.checkBFD(bad)
	b.Announce.check(bad)
	b.FlowSpec.check(bad)
	for i, p := range b.Policies {
		if p.Name == "" || slices.ContainsFunc(b.Policies[:i], func(o BGPPolicy) bool { return o.Name == p.Name }) {
			bad("bgp.policies: name %q: want each once", p.Name)
		}
		p.check(bad)
	}
	for i, n := range b.Neighbors {
		if slices.ContainsFunc(b.Neighbors[:i], func(o BGPNeighbor) bool { return o.Address == n.Address }) {
			bad("bgp neighbor %v is there twice", n.Address)
		}
		n.withDefaults().check(b, bad)
	}
}

// socketMost is how long the path of a unix socket may be, in bytes (unix(7)).
const socketMost = 107

// SpeakerDir is the directory of the process that speaks BGP, and of its socket.
func (c Config) SpeakerDir() string { return filepath.Join(c.RuntimeDir, "speaker") }

// checkSpeaker: the library listens at all addresses of a list with commas.
func (c Config) checkSpeaker(bad func(string, ...any)) {
	if strings.Contains(c.RuntimeDir, ",") {
		bad("runtime_dir %q: want a path without a comma, for the BGP speaker has its socket there, and takes a comma for the end of its path", c.RuntimeDir)
	}
	if n := len(child.Socket(c.SpeakerDir())); n > socketMost {
		bad("runtime_dir %q: want a shorter path: that of the BGP speaker's socket there has %d bytes, and may have %d", c.RuntimeDir, n, socketMost)
	}
}

func (p BGPPolicy) check(bad func(string, ...any)) {
	if _, err := p.policy(); err != nil {
		bad("%w", err)
	}
	for _, r := range p.Rules {
		if r.Prepend < 0 || r.Prepend > bgp.PrependMost {
			bad("bgp policy %s: prepend %d: want 0 to %d", p.Name, r.Prepend, bgp.PrependMost)
		}
		if r.LocalPref != nil && *r.LocalPref == 0 {
			bad("bgp policy %s: local_pref 0: want at least 1", p.Name)
		}
		if r.Deny && (r.MED != nil || r.LocalPref != nil || r.Prepend > 0 || len(r.Add)+len(r.Remove) > 0) {
			bad("bgp policy %s: a rule that denies changes nothing", p.Name)
		}
	}
}

func (n BGPNeighbor) check(b BGP, bad func(string, ...any)) {
	own := func(format string, a ...any) { bad("bgp neighbor "+n.Address.String()+": "+format, a...) }
	if !unicast(n.Address) {
		own("address: want a unicast address, no link-local one")
	}
	if n.AS == 0 {
		own("as: which AS is it in?")
	}
	if n.Local.IsValid() && (n.Local.Is4() != n.Address.Is4() || !unicast(n.Local)) {
		own("local %v: want an address of this router, of the same family", n.Local)
	}
	if n.Port < 0 || n.Port > 65535 {
		own("port is %d: want 1 to 65535", n.Port)
	}
	if n.Hops < 1 || n.Hops > 255 {
		own("hops is %d: want 1 to 255", n.Hops)
	}
	if n.Hold < 3*time.Second || n.Hold > 65535*time.Second || n.Hold%time.Second != 0 {
		own("hold is %v: want whole seconds, 3s to 65535s", n.Hold)
	}
	if n.Keepalive < time.Second || n.Keepalive > n.Hold/3 || n.Keepalive%time.Second != 0 {
		own("keepalive is %v: want whole seconds, 1s to a third of hold", n.Keepalive)
	}
	if n.ConnectRetry < time.Second || n.ConnectRetry > time.Hour || n.ConnectRetry%time.Second != 0 {
		own("connect_retry is %v: want whole seconds, 1s to 1h", n.ConnectRetry)
	}
	n.checkBFD(own)
	for i, f := range n.Families {
		if slices.Contains(n.Families[:i], f) {
			own("families: %v is there twice", f)
		}
	}
	for _, name := range []string{n.Import, n.Export} {
		if name != "" && !slices.ContainsFunc(b.Policies, func(p BGPPolicy) bool { return p.Name == name }) {
			own("there is no policy %q: [[bgp.policies]] has them", name)
		}
	}
}
