// Package clientstatus is what `lbd client` says of itself on its status socket: who connects to it is told once, as JSON.
package clientstatus

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/manycast/manycast/internal/connects"
)

// Where clients have their sockets.
const (
	RunDir        = "/run/manycast"
	SocketName    = "status.sock"
	DefaultSocket = RunDir + "/client/" + SocketName // the unit's
)

const (
	askTimeout = 5 * time.Second
	statusMax  = 64 << 20 // bytes
)

// Status is all of it.
type Status struct {
	Scope       string            `json:"scope"` // control group; empty: the whole host
	Services    []Service         `json:"services"`
	Connections []Connection      `json:"connections"` // those that can move, by user and VIP
	Followed    uint64            `json:"followed"`    // changes of destination, since the start
	Refused     map[string]uint64 `json:"refused"`     // of those, by reason, since the programs were loaded or the start
}

// Service is a VIP and port whose connections can move.
type Service struct {
	Name      string         `json:"name"`
	VIP       netip.AddrPort `json:"vip"`
	Keys      int            `json:"keys"` // that count now; 0: no change of destination is believed
	Published []netip.Prefix `json:"published"`
}

// Connection is one as this host knows it.
type Connection struct {
	User        netip.AddrPort `json:"user"`
	VIP         netip.AddrPort `json:"vip"`
	Service     string         `json:"service,omitempty"` // empty: it is none of the configuration any more
	Tag         uint16         `json:"tag"`
	Cookie      string         `json:"cookie"` // its first four bytes: who knows all of it may claim moves
	Destination netip.AddrPort `json:"destination"`
	Moves       uint32         `json:"moves"`
	Sequence    uint64         `json:"sequence"` // of the last move
}

// Sockets are those of this host's clients, whether they are alive or not: the unit's, and those of `manycast connect`.
func Sockets() []string {
	found, _ := filepath.Glob(filepath.Join(RunDir, connects.Prefix+"*", SocketName)) // the pattern is good
	return append([]string{DefaultSocket}, found...)
}

// Ask asks the client whose socket that is.
func Ask(ctx context.Context, socket string) (s Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return s, fmt.Errorf("lbd client is asked: %w", err)
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return s, fmt.Errorf("lbd client is asked: %w", err)
	}
	if err := json.NewDecoder(io.LimitReader(c, statusMax)).Decode(&s); err != nil {
		return s, fmt.Errorf("lbd client at %s: its status: %w", socket, err)
	}
	return s, nil
}
