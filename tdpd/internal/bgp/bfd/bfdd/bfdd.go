// Package bfdd has FRR's bfdd keep BFD sessions, by the commands of its vty socket (FRR 8.4).
package bfdd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/manycast/manycast/tdpd/internal/bgp/bfd"
)

// mark begins the names of profiles of ours: a peer is ours that has one. bfdd writes them into no file by itself.
const mark = "manycast-"

// Client is a bfd.Keeper.
type Client struct {
	path string
	mu   sync.Mutex
	vty  *vty // nil: not connected
}

var _ bfd.Keeper = (*Client)(nil)

// New returns a client of the bfdd whose vty socket is at path, which it connects to when it has to.
func New(path string) *Client { return &Client{path: path} }

// do executes commands, and returns the answer to the last one.
func (c *Client) do(ctx context.Context, commands ...string) (answer []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.vty == nil {
		if c.vty, err = dial(ctx, c.path); err != nil {
			return nil, err
		}
	}
	for _, command := range commands {
		if answer, err = c.vty.do(ctx, command); err == nil {
			continue
		}
		var refused refusedError
		if !errors.As(err, &refused) || len(commands) > 1 {
			c.vty.close() // what its mode is now nobody knows
			c.vty = nil
		}
		return nil, fmt.Errorf("bfdd at %s: %s: %w", c.path, command, err)
	}
	return answer, nil
}

// peer is what bfdd says of one.
type peer struct {
	Peer     netip.Addr `json:"peer"`
	VRF      string     `json:"vrf"`
	Status   string     `json:"status"`
	Why      string     `json:"diagnostic"`
	TheirWhy string     `json:"remote-diagnostic"`
}

// Words of bfdd for diagnostics (RFC 5880 section 4.1).
const (
	expired  = "control detection time expired"
	signaled = "neighbor signaled session down"
	pathDown = "path down"
)

// state is what follows of it: only who no longer hears the other end has failed.
func (p peer) state() bfd.State {
	switch {
	case p.Status == "up":
		return bfd.Up
	case p.Status != "down":
		return bfd.Down
	case p.Why == expired || p.Why == pathDown || p.Why == signaled && p.TheirWhy == expired:
		return bfd.Failed
	}
	return bfd.Down
}

// States implements bfd.Keeper.
func (c *Client) States(ctx context.Context) (map[netip.Addr]bfd.State, error) {
	text, err := c.do(ctx, "show bfd peers json")
	if err != nil {
		return nil, err
	}
	return decode(text)
}

func decode(text []byte) (map[netip.Addr]bfd.State, error) {
	var all []peer
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("bfdd's peers: %w", err)
	}
	states := map[netip.Addr]bfd.State{}
	for _, p := range all {
		if p.VRF == "" || p.VRF == "default" { // several of one neighbor: the best of them, for there is a way to it
			states[p.Peer] = max(states[p.Peer], p.state())
		}
	}
	return states, nil
}

// Apply implements bfd.Keeper.
func (c *Client) Apply(ctx context.Context, all []bfd.Session) error {
	text, err := c.do(ctx, "show running-config")
	if err != nil {
		return err
	}
	has := ours(string(text))
	commands := []string{"configure terminal", "bfd"}
	for _, s := range all {
		delete(has, profile(s))
		commands = append(commands, keep(s)...)
	}
	for _, name := range slices.Sorted(maps.Keys(has)) {
		for _, line := range has[name] {
			commands = append(commands, "no "+line)
		}
		commands = append(commands, "no profile "+name)
	}
	_, err = c.do(ctx, append(commands, "end")...)
	return err
}

// profile is the name of a session's. It has all in it by which bfdd tells sessions apart.
func profile(s bfd.Session) string {
	name := mark + s.Peer.String()
	if s.Local.IsValid() {
		name += "-" + s.Local.String()
	}
	if s.Multihop {
		name += "-multihop"
	}
	return name
}

// keep are the commands that have a session kept; bfdd goes on with one that is there.
func keep(s bfd.Session) []string {
	line := "peer " + s.Peer.String()
	if s.Multihop {
		line += " multihop"
	}
	if s.Local.IsValid() {
		line += " local-address " + s.Local.String()
	}
	return []string{
		"profile " + profile(s),
		fmt.Sprintf("transmit-interval %d", s.Transmit.Milliseconds()),
		fmt.Sprintf("receive-interval %d", s.Receive.Milliseconds()),
		fmt.Sprintf("detect-multiplier %d", s.Multiplier),
		"exit", line, "profile " + profile(s), "exit",
	}
}

// ours are the profiles of ours in bfdd's configuration, each with the lines of its peers.
func ours(config string) map[string][]string {
	has := map[string][]string{}
	peer := ""
	for _, line := range strings.Split(config, "\n") {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		name := words[1]
		switch {
		case words[0] == "peer":
			peer = strings.Join(words, " ")
		case words[0] == "profile" && strings.HasPrefix(line, "  ") && strings.HasPrefix(name, mark): // below a peer
			has[name] = append(has[name], peer)
		case words[0] == "profile" && strings.HasPrefix(name, mark):
			has[name] = slices.Clip(has[name])
		}
	}
	return has
}
