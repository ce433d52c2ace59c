package main

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// asUnit has a command line run with a unit's capabilities and no other.
func asUnit(t *testing.T, unit string, argv []string) []string {
	t.Helper()
	text, err := os.ReadFile("../tools/packaging/systemd/" + unit)
	must(t, err)
	var sets []string
	for _, key := range []string{"AmbientCapabilities", "CapabilityBoundingSet"} {
		m := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(string(text))
		if m == nil {
			t.Fatalf("%s has no %s", unit, key)
		}
		sets = append(sets, "-all,+"+strings.ReplaceAll(strings.ToLower(strings.ReplaceAll(m[1], "CAP_", "")), " ", ",+"))
	}
	return append([]string{"setpriv", "--inh-caps=" + sets[0], "--ambient-caps=" + sets[0], "--bounding-set=" + sets[1], "--no-new-privs"}, argv...)
}

// TestNetAgentTellsWhoListensAlready: with the unit's capabilities, an application that listened before its agent makes connections that can move.
func TestNetAgentTellsWhoListensAlready(t *testing.T) {
	a := newDynamicAgents(t)
	l, err := a.nodes["s1"].Listen("tcp4", "0.0.0.0:80")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go echoAll(l)
	a.start(dynamicWeb, func(_ string, argv []string) []string { return asUnit(t, "manycast-agent.service", argv) })
	client := a.client()
	testnet.Eventually(t, 20*time.Second, func() bool {
		return echoes(t, a.user, dynamicVIP) && livesAt(t, client, netip.MustParseAddrPort("10.9.0.1:80"))
	}, "a connection that lives at s1's own address")
	a.stop()
}

// TestNetClientAsItsUnit: lbd client with its unit's capabilities, as a user that owns nothing but its directories, follows a move.
func TestNetClientAsItsUnit(t *testing.T) {
	const uid = 61184 // of no account
	p := newClientNet(t)
	argv := p.argv()
	self := filepath.Join(t.TempDir(), "lbd")
	program, err := os.ReadFile(argv[2])
	must(t, err)
	must(t, os.WriteFile(self, program, 0o755))
	argv[2] = self
	pins := filepath.Join(p.bpffs, "client")
	for _, path := range []string{filepath.Dir(p.dir), p.bpffs} { // others pass, as tmpfiles.conf has it
		must(t, os.Chmod(path, 0o711))
	}
	must(t, os.Chmod(p.dir, 0o700))
	must(t, os.Mkdir(pins, 0o700))
	for _, path := range []string{p.dir, filepath.Join(p.dir, "client.toml"), filepath.Join(p.dir, "shop.yaml"), pins} {
		must(t, os.Chown(path, uid, uid))
	}
	is := strconv.Itoa(uid)
	client := p.client(append([]string{"setpriv", "--reuid=" + is, "--regid=" + is, "--clear-groups", "--inh-caps=+net_admin,+bpf", "--ambient-caps=+net_admin,+bpf"},
		asUnit(t, "manycast-client.service", argv)...))
	user, server := p.connect()
	p.echo(user, server)
	flow, h := clientFlow(user), p.held(0, server)
	h.Sequence, h.Heard, h.Destination = 1, false, p.places[1]
	server = p.carry(flow, server, 0, 1, h)
	_, err = io.WriteString(user, "early") // to where it was
	must(t, err)
	change := wire.Change{Tag: h.Tag, Cookie: h.Cookie, User: flow.User, VIP: flow.VIP, Old: p.places[0], New: p.places[1], Sequence: 1}
	if r := p.announce(1, change, []netip.AddrPort{clientVIP, p.places[0]}); r.Outcome != movement.Arrived {
		t.Errorf("the move: %+v", r)
	}
	early := make([]byte, 5)
	must(t, server.SetDeadline(time.Now().Add(20*time.Second)))
	if _, err := io.ReadFull(server, early); err != nil || string(early) != "early" {
		t.Fatalf("%q, %v", early, err)
	}
	p.echo(user, server)
	if s := p.status(); len(s.Connections) != 1 || s.Connections[0].Destination != p.places[1] || s.Followed != 1 {
		t.Errorf("status %+v", s)
	}
	client.Signal(syscall.SIGTERM)
	if err := client.Wait(); err != nil {
		t.Error(err)
	}
}
