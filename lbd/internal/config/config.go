// Package config is lbd's configuration files: director.toml, agent.toml, relay.toml and client.toml.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/health"
	"github.com/manycast/manycast/lbd/internal/load"
	"github.com/manycast/manycast/lbd/migrate"
)

// Director is director.toml, which says what each key means.
type Director struct {
	Name         string                `toml:"name"`
	StateDir     string                `toml:"state_dir"`
	Interfaces   []string              `toml:"interfaces"`
	Services     string                `toml:"services"`
	BPFFS        string                `toml:"bpffs"`
	FragmentsMax int                   `toml:"fragments_max"`
	Log          daemon.LogSection     `toml:"log"`
	Bus          daemon.BusSection     `toml:"bus"`
	Leader       Leader                `toml:"leader"`
	Tags         Tags                  `toml:"tags"`
	Metrics      daemon.MetricsSection `toml:"metrics"`
	Control      control.Config        `toml:"control"`
	Keys         DirectorKeys          `toml:"keys"`
}

// Agent is agent.toml, which says what each key means.
type Agent struct {
	Name      string                `toml:"name"`
	StateDir  string                `toml:"state_dir"`
	Interface string                `toml:"interface"`
	Address   string                `toml:"address"`
	Address6  string                `toml:"address6"`
	Services  string                `toml:"services"`
	Serve     []string              `toml:"serve"`
	Weight    int                   `toml:"weight"`
	BPFFS     string                `toml:"bpffs"`
	VIPDevice string                `toml:"vip_device"`
	PathMTU   int                   `toml:"path_mtu"`
	Settle    time.Duration         `toml:"settle"`
	Hold      time.Duration         `toml:"hold"`
	Log       daemon.LogSection     `toml:"log"`
	Join      Join                  `toml:"join"`
	Keys      Keys                  `toml:"keys"`
	Health    health.Config         `toml:"health"`
	Load      load.Config           `toml:"load"`
	Bus       daemon.BusSection     `toml:"bus"`
	Leader    Leader                `toml:"leader"`
	Metrics   daemon.MetricsSection `toml:"metrics"`
	Control   control.Config        `toml:"control"`
	Handover  Handover              `toml:"handover"`
}

// Handover is [handover] of an agent: how it reaches other servers and applications with live connections.
type Handover struct {
	Forward uint16 `toml:"forward_port"`
	Port    uint16 `toml:"port"`
	Socket  string `toml:"socket"`
}

// Leader is [leader]: whether this process may lead, and how patient it is then.
type Leader struct {
	Enabled        bool          `toml:"enabled"`
	DeadAfter      time.Duration `toml:"dead_after"`
	PrepareTimeout time.Duration `toml:"prepare_timeout"`
	Dampen         time.Duration `toml:"dampen"`
}

// Tags is [tags] of a director: which routers it tells whose users go where, for services of mode tags.
type Tags struct {
	Routers  []string      `toml:"routers"`
	Lifetime time.Duration `toml:"lifetime"`
	Hold     time.Duration `toml:"hold"`
}

// Join is [join] of an agent.
type Join struct {
	Refresh    time.Duration `toml:"refresh"`
	Resend     time.Duration `toml:"resend"`
	Robustness int           `toml:"robustness"`
}

// Keys is [keys] of an agent.
type Keys struct {
	Member   string `toml:"member"`
	Dir      string `toml:"dir"`
	Unsigned bool   `toml:"unsigned"`
}

// DirectorKeys is [keys] of a director: for the control group alone.
type DirectorKeys struct {
	Member string `toml:"member"`
	Dir    string `toml:"dir"`
}

// DefaultDirector has the defaults of director.toml.
func DefaultDirector() Director {
	return Director{
		Name: hostname(), StateDir: "/var/lib/manycast/director", BPFFS: "/sys/fs/bpf/manycast/director", FragmentsMax: 65536,
		Log:     daemon.LogSection{Level: "info"},
		Leader:  defaultLeader(true),
		Tags:    Tags{Lifetime: 30 * time.Second, Hold: 10 * time.Minute},
		Control: control.DefaultConfig(),
		Keys:    DirectorKeys{Member: "/var/lib/manycast/director/member.key", Dir: "/var/lib/manycast/director/groups"},
	}
}

func defaultLeader(enabled bool) Leader {
	return Leader{Enabled: enabled, DeadAfter: 2500 * time.Millisecond, PrepareTimeout: 500 * time.Millisecond, Dampen: 5 * time.Second}
}

// DefaultAgent has the defaults of agent.toml.
func DefaultAgent() Agent {
	return Agent{
		Name: hostname(), StateDir: "/var/lib/manycast/agent", Weight: 1, BPFFS: "/sys/fs/bpf/manycast/agent", VIPDevice: "lo",
		Settle: 100 * time.Millisecond, Hold: 2 * time.Second, Log: daemon.LogSection{Level: "info"},
		Join:     Join{Refresh: 10 * time.Second, Resend: time.Second, Robustness: 2},
		Keys:     Keys{Member: "/var/lib/manycast/agent/member.key", Dir: "/var/lib/manycast/agent/groups"},
		Health:   health.Default(),
		Load:     load.DefaultConfig(),
		Leader:   defaultLeader(false),
		Control:  control.DefaultConfig(),
		Handover: Handover{Forward: 8464, Port: 8465, Socket: migrate.DefaultAgent},
	}
}

// hostname is the host's own name without its domain: dots are not for names of servers.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	short, _, _ := strings.Cut(strings.ToLower(name), ".")
	return short
}

// LoadDirector reads and checks a director's file.
func LoadDirector(path string) (Director, error) {
	c := DefaultDirector()
	if err := daemon.Load(path, &c); err != nil {
		return c, err
	}
	return c, inFile(path, c.check())
}

// LoadAgent reads and checks an agent's file.
func LoadAgent(path string) (Agent, error) {
	c := DefaultAgent()
	if err := daemon.Load(path, &c); err != nil {
		return c, err
	}
	if c.Control.Enabled() && len(c.Control.Interfaces) == 0 {
		c.Control.Interfaces = []string{c.Interface}
	}
	return c, inFile(path, c.check())
}

func inFile(path string, err error) error {
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

func (c Director) check() error {
	errs := []error{service.CheckName(c.Name), checkDir("state_dir", c.StateDir), checkDir("bpffs", c.BPFFS), checkBus(c.Bus, c.Services, "director"), c.Metrics.Check(), c.Control.Check()}
	if len(c.Interfaces) == 0 && len(c.Tags.Routers) == 0 {
		errs = append(errs, errors.New(`neither interfaces nor tags.routers: name interfaces where users' packets enter, such as interfaces = ["eth0"], or routers to tell whose users go where`))
	}
	if c.FragmentsMax < 1 || c.FragmentsMax > 1<<24 {
		errs = append(errs, fmt.Errorf("fragments_max %d: want 1 to %d", c.FragmentsMax, 1<<24))
	}
	if c.Control.Enabled() && c.Keys.Dir == "" {
		errs = append(errs, errors.New("keys.dir is empty: name the directory of the control group's private key"))
	}
	return errors.Join(append(errs, c.Leader.check(), c.Tags.check(c.Bus))...)
}

func (t Tags) check(b daemon.BusSection) error {
	var errs []error
	if len(t.Routers) > 0 && len(b.URLs) == 0 {
		errs = append(errs, errors.New("tags.routers without bus.urls: routers are told by the bus"))
	}
	for i, name := range t.Routers {
		if slices.Contains(t.Routers[:i], name) {
			errs = append(errs, fmt.Errorf("tags.routers: %s is there twice", name))
		}
		if err := daemon.CheckRouterName(name); err != nil {
			errs = append(errs, fmt.Errorf("tags.routers: %w", err))
		}
	}
	if t.Lifetime < 3*time.Second || t.Lifetime > 24*time.Hour || t.Hold < 0 || t.Hold > 24*time.Hour {
		errs = append(errs, fmt.Errorf("tags: lifetime %v and hold %v: want 3s to 24h, and 0s to 24h", t.Lifetime, t.Hold))
	}
	return errors.Join(errs...)
}

func (l Leader) check() error {
	var errs []error
	if l.Enabled && l.DeadAfter < time.Second {
		errs = append(errs, fmt.Errorf("leader.dead_after %v: want at least 1s: registrations are renewed each 500ms", l.DeadAfter))
	}
	if l.Enabled && l.PrepareTimeout <= 0 {
		errs = append(errs, fmt.Errorf("leader.prepare_timeout %v: want more than 0", l.PrepareTimeout))
	}
	if l.Enabled && l.Dampen <= 0 {
		errs = append(errs, fmt.Errorf("leader.dampen %v: want more than 0", l.Dampen))
	}
	return errors.Join(errs...)
}

func (c Agent) check() error {
	errs := []error{
		service.CheckName(c.Name), checkDir("state_dir", c.StateDir), checkDir("bpffs", c.BPFFS), checkBus(c.Bus, c.Services, "agent"), c.Metrics.Check(), c.Health.Check(), c.Load.Check(), c.Leader.check(), c.Control.Check(),
	}
	if c.Leader.Enabled && len(c.Bus.URLs) == 0 {
		errs = append(errs, errors.New("leader.enabled without bus.urls: who leads has its lease and the allocations on the bus"))
	}
	if c.Interface == "" {
		errs = append(errs, errors.New(`no interface: name the one where groups are joined, such as interface = "eth0"`))
	}
	if a, err := netip.ParseAddr(c.Address); c.Address != "" && (err != nil || !a.Is4()) {
		errs = append(errs, fmt.Errorf("address %q is not an IPv4 address", c.Address))
	}
	if a, err := netip.ParseAddr(c.Address6); c.Address6 != "" && (err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" || !a.IsGlobalUnicast()) {
		errs = append(errs, fmt.Errorf("address6 %q is not a global IPv6 address", c.Address6))
	}
	if c.Weight < 0 || c.Weight > alloc.MaxWeight {
		errs = append(errs, fmt.Errorf("weight %d: want 0 to %d", c.Weight, alloc.MaxWeight))
	}
	if c.PathMTU != 0 && (c.PathMTU < 576 || c.PathMTU > 65535) {
		errs = append(errs, fmt.Errorf("path_mtu %d: want 576 to 65535, or 0 for the interface's", c.PathMTU))
	}
	if c.Settle < 0 || c.Settle > time.Second {
		errs = append(errs, fmt.Errorf("settle %v: want 0s to 1s", c.Settle))
	}
	if c.Hold < time.Second {
		errs = append(errs, fmt.Errorf("hold %v: want at least 1s, in which a restart loses nothing", c.Hold))
	}
	if c.Join.Refresh <= 0 || c.Join.Resend <= 0 || c.Join.Robustness < 1 {
		errs = append(errs, errors.New("join: refresh and resend have to be more than 0, robustness at least 1"))
	}
	if c.Control.Enabled() && c.Keys.Unsigned {
		errs = append(errs, errors.New("control.group with keys.unsigned: the channel needs the group's key"))
	}
	if !c.Keys.Unsigned && c.Keys.Dir == "" {
		errs = append(errs, errors.New("keys.dir is empty: name the directory of the groups' private keys"))
	}
	if c.Services == "" && len(c.Serve) == 0 {
		errs = append(errs, errors.New(`no serve: name the services that this server is in, such as serve = ["web"]`))
	}
	if c.Handover.Socket != "" {
		errs = append(errs, checkDir("handover.socket", c.Handover.Socket))
	}
	for _, name := range c.Serve {
		if err := service.CheckName(name); err != nil {
			errs = append(errs, fmt.Errorf("serve: %w", err))
		}
	}
	return errors.Join(errs...)
}

func checkBus(b daemon.BusSection, services, role string) error {
	if len(b.URLs) == 0 && services == "" {
		return errors.New("neither bus.urls nor services: name a bus, or a file of static services")
	}
	return b.Check(role)
}

func checkDir(key, dir string) error {
	if !strings.HasPrefix(dir, "/") {
		return fmt.Errorf("%s %q: want an absolute path", key, dir)
	}
	return nil
}
