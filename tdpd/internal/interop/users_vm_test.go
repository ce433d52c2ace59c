package interop

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Places in a chain around FRR: a user, ours at the edge, FRR, ours of the director, the server.
const (
	atUser = iota
	atEdge
	atForeign
	atDirector
	atServer
)

// aroundFRR is such a chain. The edge puts labels on users' packets by XDP, FRR's kernel swaps them, and the director's router pops them, by XDP or
// by its kernel. Both of ours have sessions with FRR, and one by targeted hellos with each other. No router has a route to the VIP.
type aroundFRR struct {
	*line
	edge, director *ours
	foreign        *frr
	server         netip.Prefix
	ldp            [2]string // captures of LDP on FRR's links
	captures       []*testnet.Process
}

func newAroundFRR(t *testing.T, fast bool, global string) *aroundFRR {
	l := newLine(t, 20, 9, 5, 2, 1)
	c := &aroundFRR{line: l, server: netip.MustParsePrefix("10.0.4.2/32")}
	l.run(atServer, "ip", "addr", "add", netip.PrefixFrom(vip, 32).String(), "dev", "lo")
	l.run(atUser, "ip", "route", "add", vip.String(), "via", "10.0.1.2")
	for _, at := range []int{atEdge, atForeign} {
		l.route(at, atServer, c.server)
	}
	user := l.nodes[atUser]
	if err := errors.Join(user.WholeChecksums("r"), user.TakesXDP("r"), l.nodes[atForeign].TakesXDP("l"), l.nodes[atServer].TakesXDP("l")); err != nil {
		t.Fatal(err)
	}
	for i, iface := range []string{"l", "r"} {
		c.ldp[i] = filepath.Join(t.TempDir(), iface+".pcap")
		c.captures = append(c.captures, l.capture(atForeign, iface, "-U", "-w", c.ldp[i], "port 646 or (mpls and tcp port 646)"))
	}
	bpffs := l.net.BPFFS()
	c.foreign = l.frr(atForeign, frrConfig{is4: true, global: global})
	c.edge = l.tdpd(atEdge, func(r *role) {
		r.Config.Interfaces, r.Config.Hello.TargetedHold = []string{"r"}, hold
		r.Config.Neighbors = []config.Neighbor{{RouterID: l.id(atDirector), Targeted: l.id(atDirector)}}
		r.Config.Forwarding.Fast, r.Config.Forwarding.Edge, r.Config.Forwarding.BPFFS = true, []string{"l"}, filepath.Join(bpffs, "edge")
		r.Config.Users.Accept = []config.UsersAccepted{{From: l.id(atDirector), VIPs: []netip.Prefix{netip.PrefixFrom(vip, 32)}}}
		r.Config.Labels.First = 1000
	})
	c.director = l.tdpd(atDirector, func(r *role) {
		r.Config.Interfaces, r.Config.Hello.TargetedHold = []string{"l"}, hold
		r.Config.Neighbors = []config.Neighbor{{RouterID: l.id(atEdge), Targeted: l.id(atEdge)}}
		r.Config.Forwarding.Fast, r.Config.Forwarding.BPFFS = fast, filepath.Join(bpffs, "director")
		r.Config.Users.Upstream = []netip.Addr{l.id(atEdge), l.id(atForeign)} // FRR is named, and is not told
		r.Config.Servers.Addresses = []netip.Addr{c.server.Addr()}
		r.Config.Labels.First = 3000
	})
	c.meet()
	return c
}

// meet waits for all sessions, and for the server's tree.
func (c *aroundFRR) meet() {
	c.t.Helper()
	operational(c.line, c.edge, c.foreign)
	operational(c.line, c.director, c.foreign)
	c.edge.meets(atDirector)
	c.eventually(func() bool {
		local, remote := c.foreign.bindings(atDirector, c.server)
		return local != "" && local == c.edge.remote(atForeign, c.server) && remote == c.director.local(c.server)
	}, "a tree to the server")
}

// alongTheTree sends pings and a megabyte from the user to the VIP, and checks that all of it crosses both of FRR's links with the labels of the tree.
func (c *aroundFRR) alongTheTree() {
	c.t.Helper()
	c.reaches(atUser, vip)
	var labelled, bare [2]*testnet.Process
	for i, iface := range []string{"l", "r"} {
		labelled[i] = c.capture(atForeign, iface, "-s", "100", "mpls and greater 100")
		bare[i] = c.capture(atForeign, iface, "ip and dst host "+vip.String())
	}
	c.reaches(atUser, vip)
	c.transfer(atUser, atServer, vip, 1<<20)
	for i, label := range []string{c.edge.remote(atForeign, c.server), c.director.local(c.server)} {
		c.crosses(labelled[i], label, vip)
		if strings.Contains(bare[i].Output(), vip.String()) {
			c.t.Errorf("link %d: users' packets without a label:\n%s", i, bare[i].Output())
		}
	}
}

// TestVMUsersAroundFRR: a binding passes FRR by, and users' packets pass through it: labelled on both of its links, none without. FRR is
// offered the capability, hears nothing of bindings though it is named as upstream, and keeps its sessions.
func TestVMUsersAroundFRR(t *testing.T) {
	for name, fast := range map[string]bool{"kernel at the last router": false, "XDP at the last router": true} {
		t.Run(name, func(t *testing.T) {
			c := newAroundFRR(t, fast, "")
			for _, at := range []int{atEdge, atForeign, atDirector} {
				if out, err := c.nodes[at].Run("ip", "route", "get", vip.String()); err == nil {
					t.Fatalf("router %d has a route to the service: %s", at, out)
				}
			}
			up := [2]time.Duration{c.foreign.up(atEdge), c.foreign.up(atDirector)}
			since := time.Now()
			c.director.bind(allUsers(1, 1, c.server.Addr()))
			c.eventually(func() bool { return c.edge.steers() == 1 }, "the binding at the edge")
			c.alongTheTree()
			for i, o := range []*ours{c.edge, c.director} {
				if begun, up := o.sessions(atForeign); begun != 1 || !up {
					t.Errorf("%v: %d sessions with FRR, one now: %v", c.id(o.at), begun, up)
				}
				if now := c.foreign.up(o.at); now < up[i]+time.Since(since).Truncate(time.Second)-time.Second {
					t.Errorf("FRR's session with %v is up for %v, before it was %v", c.id(o.at), now, up[i])
				}
			}
			c.heardByFRR()
		})
	}
}

// heardByFRR looks with another implementation's decoder at what both of ours said to FRR, and FRR to them: the capability is offered, no message
// of a vendor follows, and nobody complains. What the director's router tells the edge is in the captures, too.
func (c *aroundFRR) heardByFRR() {
	c.t.Helper()
	for _, p := range c.captures {
		p.Signal(unix.SIGTERM)
		_ = p.Wait()
	}
	for link, at := range []int{atEdge, atDirector} {
		offered, bound, bindings := false, false, false
		rows := tshark(c.t, "-r", c.ldp[link], "-Y", "tcp && ldp", "-T", "fields", "-E", "occurrence=a",
			"-e", "ip.src", "-e", "ip.dst", "-e", "ldp.msg.type", "-e", "ldp.msg.tlv.status.data", "-e", "tcp.payload")
		for row := range strings.Lines(rows) {
			f := strings.Split(strings.TrimSuffix(row, "\n"), "\t")
			ours, types := f[0] == c.id(at).String() && f[1] == c.id(atForeign).String(), f[2]
			vendors := strings.Contains(types, "0x3e")
			switch {
			case ours && vendors:
				c.t.Errorf("%v sends FRR messages of a vendor: %s", c.id(at), types)
			case ours:
				offered = offered || strings.Contains(types, "0x0200") && strings.Contains(f[4], capability)
				bound = bound || strings.Contains(types, "0x0400")
			case f[0] == c.id(atForeign).String() && strings.Contains(types, "0x0001") && strings.Trim(strings.ReplaceAll(f[3], endOfLIB, ""), ",") != "":
				c.t.Errorf("FRR notifies %v: status %s", f[1], f[3])
			case f[0] == c.id(atDirector).String() && f[1] == c.id(atEdge).String():
				bindings = bindings || vendors
			}
		}
		if !offered || !bound || !bindings {
			c.t.Errorf("link %d: FRR is offered the capability: %v, bound labels to: %v; the director's router tells the edge a binding: %v", link, offered, bound, bindings)
		}
	}
}

// What captures show: the capability's TLV, and the status that says that all labels have been told.
var capability, endOfLIB = "be4d000500024d4301", fmt.Sprintf("0x%08x", uint32(wire.StatusEndOfLIB))

// TestVMUsersWhileRoutersRestart: FRR's ldpd is killed and comes back, and so does the director's router behind it. The binding goes on; without a label
// the edge sends users as the route says, to the director, and with one along the tree again. FRR with ordered control takes its label back when
// the router behind it is gone; with independent control it would go on telling one that leads nowhere.
func TestVMUsersWhileRoutersRestart(t *testing.T) {
	for name, ordered := range map[string]bool{"independent control": false, "ordered control": true} {
		t.Run(name, func(t *testing.T) {
			global := ""
			if ordered {
				global = " ordered-control\n"
			}
			c := newAroundFRR(t, false, global)
			for _, at := range []int{atEdge, atForeign, atDirector} { // in place of a director, who sends users on to the server
				c.route(at, atServer, netip.PrefixFrom(vip, 32))
			}
			c.director.bind(allUsers(1, 1, c.server.Addr()))
			c.eventually(func() bool { return c.edge.steers() == 1 }, "the binding at the edge")
			c.alongTheTree()
			goesOn := func(when string) {
				t.Helper()
				c.reaches(atUser, vip)
				if got := c.edge.steers(); got != 1 {
					t.Errorf("%s: the edge steers by %d", when, got)
				}
			}

			f := c.flood(atUser, atServer, vip)
			c.foreign.restart(func() {
				c.eventually(func() bool { return c.edge.remote(atForeign, c.server) == "" }, "FRR is gone")
				goesOn("without FRR's ldpd")
			})
			c.meet()
			goesOn("FRR's ldpd is back")
			t.Logf("FRR's ldpd killed: %v", f.end())
			c.alongTheTree()
			if !ordered {
				return
			}

			f = c.flood(atUser, atServer, vip)
			c.director.Signal(unix.SIGKILL)
			_ = c.director.Wait()
			c.eventually(func() bool { return c.edge.remote(atForeign, c.server) == "" }, "FRR takes its label back")
			goesOn("without the director's router")
			c.director.start()
			c.meet()
			goesOn("the director's router is back")
			t.Logf("the director's router killed: %v", f.end())
			c.director.bind(allUsers(2, 2, c.server.Addr()))
			c.eventually(func() bool { return c.edge.steers() == 2 }, "a new binding")
			c.alongTheTree()
		})
	}
}
