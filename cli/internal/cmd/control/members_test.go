package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/control/controltest"
	"github.com/manycast/manycast/internal/control/transport"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/testnet"
)

// member runs a member of a channel that answers on the bus, as a daemon does, until the test ends.
func member(t *testing.T, b *cmdtest.Bus, lan *transport.LAN, daemonName, name string, role control.Role, last byte) *channel.Channel {
	t.Helper()
	busRole := map[control.Role]string{control.Server: "agent", control.Director: "director", control.Router: "igmpd"}[role]
	credentials := filepath.Join(filepath.Dir(b.Credentials()), busRole+".nk")
	conn, err := bus.Connect(bus.Config{URLs: []string{b.URL()}, Credentials: credentials, Name: name, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	address := netip.AddrFrom4([4]byte{10, 0, 0, last})
	c, err := channel.New(channel.Config{
		Identity:  controltest.Identity(name, role, role == control.Director, address, time.Now()),
		Authority: controltest.Authority().Public(), Group: controltest.Group,
		Heartbeat: 50 * time.Millisecond, DeadAfter: 250 * time.Millisecond, FrameMax: 1200,
		Transport: lan.Join(address), Random: controltest.Random(last), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	c.SetKeys([]keyfile.Group{controltest.GroupKey(1)})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	for _, task := range []daemon.Task{c, c.Answer(conn, daemonName)} {
		go func() { ended <- task.Run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
		conn.Close()
	})
	return c
}

func TestMembers(t *testing.T) {
	b := cmdtest.Start(t)
	if r := b.Run("control", "members"); r.Error == nil || !strings.Contains(r.Error.Error(), "[control] group") {
		t.Errorf("asked nobody: %v", r.Error)
	}
	lan := transport.NewLAN()
	s1 := member(t, b, lan, "lbd", "s1", control.Server, 1)
	member(t, b, lan, "lbd", "d1", control.Director, 9)
	member(t, b, lan, "igmpd", "r1", control.Router, 8)
	s1.SetStatus(control.Status{OK: false, Why: "the application does not answer"})

	var out string
	testnet.Eventually(t, 10*time.Second, func() bool {
		r := b.Run("control", "members")
		out = r.Out
		return r.Error == nil && strings.Count(out, "does not answer") == 2 && strings.Contains(out, "r1") && strings.Contains(out, "director, leader")
	}, "the director and the router answer, and hear all")
	for _, line := range strings.Split(out, "\n") {
		if strings.HasPrefix(line, "s1 ") {
			t.Errorf("a server answered for all:\n%s", out)
		}
	}

	r := b.Run("control", "members", "--of", "s1", "-o", "json")
	var answer struct {
		Members []struct {
			Of, Member, Role, Address, Health string
			Via                               []string
			HeardMS                           int64 `json:"heard_ms"`
		}
	}
	if err := json.Unmarshal([]byte(r.Out), &answer); err != nil || len(answer.Members) != 2 {
		t.Fatalf("%v, %v\n%s", r.Error, err, r.Out)
	}
	d1 := answer.Members[0]
	if d1.Of != "s1" || d1.Member != "d1" || d1.Role != "director" || d1.Address != "10.0.0.9" || d1.Health != "available" || len(d1.Via) != 1 || d1.HeardMS < 0 {
		t.Errorf("%+v", d1)
	}
	if r := b.Run("control", "members", "--of", "s7"); r.Error == nil || !strings.Contains(r.Error.Error(), "s7 does not answer") {
		t.Errorf("asked nobody: %v", r.Error)
	}
}
