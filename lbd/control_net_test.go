package main

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/testnet"
)

var controlGroup = netip.MustParseAddr("239.80.255.1")

// issuer hands out what members of a channel need.
type issuer struct {
	t         *testing.T
	authority identity.Authority
	public    string
	groups    []keyfile.Group
}

func newIssuer(t *testing.T, groups ...netip.Addr) *issuer {
	t.Helper()
	a, err := identity.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "authority")
	if err := keyfile.WriteAuthority(path, a, false); err != nil {
		t.Fatal(err)
	}
	i := &issuer{t: t, authority: a, public: path + ".pub"}
	for _, address := range groups {
		g, err := keyfile.NewGroup("group.example.", address)
		if err != nil {
			t.Fatal(err)
		}
		i.groups = append(i.groups, g)
	}
	return i
}

// sections are [control] and [keys] of a member.
func (i *issuer) sections(name string, role control.Role, address, ifname string) string {
	i.t.Helper()
	dir := i.t.TempDir()
	id, err := identity.New(i.authority, identity.Certificate{
		Name: name, Role: role, Address: netip.MustParseAddr(address), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	})
	if err == nil {
		err = keyfile.WriteIdentity(filepath.Join(dir, "identity"), id, false)
	}
	for _, g := range i.groups {
		if err == nil {
			err = keyfile.WriteGroup(filepath.Join(dir, "groups", g.FileName()), g, false)
		}
	}
	if err != nil {
		i.t.Fatal(err)
	}
	return fmt.Sprintf("[control]\ngroup = %q\nidentity = %q\nauthority = %q\ninterfaces = [%q]\n[keys]\ndir = %q\n",
		controlGroup, filepath.Join(dir, "identity"), i.public, ifname, filepath.Join(dir, "groups"))
}

var availableMembers = regexp.MustCompile(`manycast_control_members\{health="available"\} (\d+)`)

// hears says how many others a process takes for available, by its metrics.
func hears(node *testnet.Node) string {
	out, err := node.Run("curl", "-s", "http://127.0.0.1:9100/metrics")
	if found := availableMembers.FindStringSubmatch(out); err == nil && found != nil {
		return found[1]
	}
	return ""
}

// TestNetControlChannel runs an agent and a director as processes on a switch that snoops: they hear each other, the agent joins the
// group by a signed join so that the switch brings it frames, and who is killed is missed, by the agent that
// starts next, too.
func TestNetControlChannel(t *testing.T) {
	n := testnet.New(t)
	lan, server, edge, router := n.Node("switch"), n.Node("s1"), n.Node("d1"), n.Node("r")
	n.Link(server, "eth0", "10.9.0.2/24", lan, "p1", "")
	n.Link(edge, "eth0", "10.9.0.9/24", lan, "p2", "")
	n.Link(router, "eth0", "10.9.0.1/24", lan, "p3", "")
	lan.Bridge("br0", true, "p1", "p2", "p3")
	for _, node := range []*testnet.Node{server, edge} {
		if out, err := node.Run("ip", "link", "set", "lo", "up"); err != nil {
			t.Fatal(out)
		}
	}
	reports := listen(t, router, "eth0")
	keys := newIssuer(t, controlGroup, netip.MustParseAddr("239.80.80.80"))
	metrics, state := "[metrics]\nlisten = \"127.0.0.1:9100\"\n", t.TempDir()
	agent := server.Start(lbd(t, "agent", fmt.Sprintf("name = \"s1\"\ninterface = \"eth0\"\nbpffs = %q\nstate_dir = %q\n",
		filepath.Join(n.BPFFS(), "agent"), state)+keys.sections("s1", control.Server, "10.9.0.2", "eth0")+metrics)...)
	director := edge.Start(lbd(t, "director", fmt.Sprintf("name = \"d1\"\ninterfaces = [\"eth0\"]\nbpffs = %q\nstate_dir = %q\n",
		filepath.Join(n.BPFFS(), "director"), t.TempDir())+keys.sections("d1", control.Director, "10.9.0.9", "eth0")+metrics)...)

	testnet.Eventually(t, 15*time.Second, func() bool { return hears(server) == "1" && hears(edge) == "1" }, "each hears the other")
	standing := func(leave bool) func() bool {
		return func() bool {
			for _, s := range reports.joins() {
				if s.Group == controlGroup && s.Leave == leave && len(s.Owner.Permit) == 0 && s.Verify(keys.groups[0].Private.Public().(ed25519.PublicKey)) {
					return true
				}
			}
			return false
		}
	}
	testnet.Eventually(t, 5*time.Second, standing(false), "a signed join of the control group")
	if out, err := lan.Run("bridge", "mdb", "show", "dev", "br0"); err != nil || !strings.Contains(out, "port p1 grp "+controlGroup.String()) {
		t.Errorf("the switch did not learn the group from the agent's join: %v\n%s", err, out)
	}

	director.Signal(syscall.SIGKILL)
	testnet.Eventually(t, 5*time.Second, func() bool { return hears(server) == "0" }, "the director is missed")
	agent.Signal(syscall.SIGTERM)
	if err := agent.Wait(); err != nil {
		t.Fatalf("clean stop: %v\n%s", err, agent.Output())
	}
	testnet.Eventually(t, 5*time.Second, standing(true), "a leave of the control group")
	known := channel.KnownIn(state, slog.New(slog.DiscardHandler)).Load()
	if len(known) != 1 || known[0].Name != "d1" || !known[0].Silent {
		t.Errorf("kept for the next agent: %+v, want that d1 is silent", known)
	}
}
