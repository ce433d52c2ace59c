package control

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Config is section [control] of a daemon's configuration. Without a group there is no channel.
type Config struct {
	Group      string        `toml:"group"`      // IPv4 multicast address
	Port       uint16        `toml:"port"`       // UDP
	Identity   string        `toml:"identity"`   // file of `manycast key create identity`
	Authority  string        `toml:"authority"`  // public file of `manycast key create authority`
	Interfaces []string      `toml:"interfaces"` // that members or their routers are on
	Heartbeat  time.Duration `toml:"heartbeat"`
	DeadAfter  time.Duration `toml:"dead_after"` // silence that long counts
	TTL        int           `toml:"ttl"`        // routers between members, and one
	FrameMax   int           `toml:"frame_max"`  // bytes of UDP payload
}

// DefaultConfig is what holds where a file says nothing.
func DefaultConfig() Config {
	return Config{
		Port: 8463, Identity: "/etc/manycast/identity.key", Authority: "/etc/manycast/authority.pub",
		Interfaces: []string{}, Heartbeat: 50 * time.Millisecond, DeadAfter: 250 * time.Millisecond, TTL: 32, FrameMax: 1200,
	}
}

// Enabled says whether there is a channel.
func (c Config) Enabled() bool { return c.Group != "" }

// GroupAddr is the group; Check has seen that it is one.
func (c Config) GroupAddr() netip.Addr {
	group, _ := netip.ParseAddr(c.Group)
	return group
}

// Bounds of a channel's configuration.
const (
	minHeartbeat  = 10 * time.Millisecond
	maxHeartbeat  = time.Second
	maxInterfaces = 64
)

// Check says all that is wrong; nil where there is no channel.
func (c Config) Check() error {
	if !c.Enabled() {
		return nil
	}
	errs := c.heard().check()
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("control: "+format, args...)) }
	if c.Identity == "" || c.Authority == "" {
		wrong("want identity and authority: make them with `manycast key create identity` and `manycast key create authority`")
	}
	if c.Heartbeat < minHeartbeat || c.Heartbeat > maxHeartbeat {
		wrong("heartbeat %v: want %v to %v", c.Heartbeat, minHeartbeat, maxHeartbeat)
	}
	if c.DeadAfter < 3*c.Heartbeat {
		wrong("dead_after %v: want at least three heartbeats of %v, so that one lost packet is no death", c.DeadAfter, c.Heartbeat)
	}
	if c.TTL < 1 || c.TTL > 255 {
		wrong("ttl %d: want 1 to 255", c.TTL)
	}
	if c.FrameMax < 512 || c.FrameMax > 9000 {
		wrong("frame_max %d: want 512 to 9000 bytes", c.FrameMax)
	}
	return errors.Join(errs...)
}

// heard is what members and listeners have in common.
func (c Config) heard() ListenConfig {
	return ListenConfig{c.Group, c.Port, c.Authority, c.Interfaces, c.DeadAfter}
}

// ListenConfig is section [control] of a daemon that hears the channel and says nothing there. Without a group there is no channel.
type ListenConfig struct {
	Group      string        `toml:"group"`      // IPv4 multicast address
	Port       uint16        `toml:"port"`       // UDP
	Authority  string        `toml:"authority"`  // public file of `manycast key create authority`
	Interfaces []string      `toml:"interfaces"` // that members or their routers are on
	DeadAfter  time.Duration `toml:"dead_after"` // silence that long counts; all members' own
}

// DefaultListenConfig is what holds where a file says nothing.
func DefaultListenConfig() ListenConfig { return DefaultConfig().heard() }

// Enabled says whether there is a channel.
func (c ListenConfig) Enabled() bool { return c.Group != "" }

// GroupAddr is the group; Check has seen that it is one.
func (c ListenConfig) GroupAddr() netip.Addr { return Config{Group: c.Group}.GroupAddr() }

// Check says all that is wrong; nil where there is no channel.
func (c ListenConfig) Check() error {
	if !c.Enabled() {
		return nil
	}
	errs := c.check()
	if c.Authority == "" {
		errs = append(errs, errors.New("control: want authority: make it with `manycast key create authority`"))
	}
	if c.DeadAfter < 3*minHeartbeat {
		errs = append(errs, fmt.Errorf("control: dead_after %v: want what the members have, at least %v", c.DeadAfter, 3*minHeartbeat))
	}
	return errors.Join(errs...)
}

func (c ListenConfig) check() (errs []error) {
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("control: "+format, args...)) }
	linkLocal := netip.MustParsePrefix("224.0.0.0/24")
	if group, err := netip.ParseAddr(c.Group); err != nil || !group.Is4() || !group.IsMulticast() || linkLocal.Contains(group) {
		wrong("group %.60q: want an IPv4 multicast address that routers forward, such as 239.80.255.1", c.Group)
	}
	if c.Port == 0 {
		wrong("port 0: want 1 to 65535")
	}
	if len(c.Interfaces) == 0 || len(c.Interfaces) > maxInterfaces {
		wrong("%d interfaces: name 1 to %d, those that other members or the routers to them are on", len(c.Interfaces), maxInterfaces)
	}
	for i, name := range c.Interfaces {
		if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \t\n") || slices.Contains(c.Interfaces[:i], name) {
			wrong("interface %.40q: want each name once, as `ip link` shows it", name)
		}
	}
	return errs
}
