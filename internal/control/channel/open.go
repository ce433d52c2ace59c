package channel

import (
	"crypto/rand"
	"log/slog"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/members"
	"github.com/manycast/manycast/internal/control/transport"
	"github.com/manycast/manycast/internal/keyfile"
)

// Open makes a Channel on the interfaces of a checked configuration. It has no keys yet.
func Open(cfg control.Config, known []members.Known, log *slog.Logger) (*Channel, error) {
	id, err := keyfile.ReadIdentity(cfg.Identity)
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

// Identity is this member's own.
func (c *Channel) Identity() identity.Identity { return c.cfg.Identity }
