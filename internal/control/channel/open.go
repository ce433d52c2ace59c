package channel

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/members"
	"github.com/manycast/manycast/internal/control/transport"
	"github.com/manycast/manycast/internal/keyfile"
)

// Open makes a Channel on the interfaces of a checked configuration, for the process of that name and role: others know it by its identity
// here, and by its name on the bus, in allocations and to operators, and they have to be one. It has no keys yet.
func Open(cfg control.Config, name string, role control.Role, known []members.Known, log *slog.Logger) (*Channel, error) {
	id, err := keyfile.ReadIdentity(cfg.Identity)
	if err == nil {
		err = belongs(id.Certificate, cfg.Identity, name, role)
	}
	if err != nil {
		return nil, err
	}
	authority, err := keyfile.ReadAuthorityPublic(cfg.Authority)
	if err != nil {
		return nil, err
	}
	link, err := transport.OpenLink(transport.LinkConfig{
		Group: cfg.GroupAddr(), Port: cfg.Port, Address: id.Address, Interfaces: cfg.Interfaces, TTL: cfg.TTL, Log: log,
	})
	if err != nil {
		return nil, err
	}
	return New(Config{
		Identity: id, Authority: authority, Group: cfg.GroupAddr(), Heartbeat: cfg.Heartbeat, DeadAfter: cfg.DeadAfter, FrameMax: cfg.FrameMax,
		Known: known, Transport: link, Random: rand.Reader, Log: log,
	})
}

// Listen makes a Channel on the interfaces of a checked configuration that hears members and is none itself, for a router of that name: it
// needs the group's key and the authority, no identity. It has no keys yet.
func Listen(cfg control.ListenConfig, name string, known []members.Known, log *slog.Logger) (*Channel, error) {
	authority, err := keyfile.ReadAuthorityPublic(cfg.Authority)
	if err != nil {
		return nil, err
	}
	link, err := transport.OpenLink(transport.LinkConfig{Group: cfg.GroupAddr(), Port: cfg.Port, Interfaces: cfg.Interfaces, TTL: 1, Log: log})
	if err != nil {
		return nil, err
	}
	return New(Config{
		Name: name, Authority: authority, Group: cfg.GroupAddr(), DeadAfter: cfg.DeadAfter, Known: known, Transport: link, Random: rand.Reader, Log: log,
	})
}

// Identity is this member's own.
func (c *Channel) Identity() identity.Identity { return c.cfg.Identity }

// Boot is this start of it, as others see it.
func (c *Channel) Boot() uint64 { return c.boot }

// Authority is whose certificates count.
func (c *Channel) Authority() ed25519.PublicKey { return c.cfg.Authority }

func belongs(c identity.Certificate, file, name string, role control.Role) error {
	if c.Name != name || c.Role != role {
		return fmt.Errorf("identity %s is of %s, role %s, and this is %s, role %s: make one with `manycast key create identity %s --role %s`",
			file, c.Name, c.Role, name, role, name, role)
	}
	return nil
}
