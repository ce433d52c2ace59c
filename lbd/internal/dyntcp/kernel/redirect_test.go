package kernel

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// agent is the data plane of a server: what comes to the VIP is its.
func (p *path) agent(node *testnet.Node, own, peer netip.Addr, keeps bool) dataplane.AgentPlane {
	p.t.Helper()
	everybody := portion.Union{{Permit: []portion.Portion{portion.MustParse("0.0.0.0/0.0.0.0")}}}
	var a dataplane.AgentPlane
	err := node.Do(func() (err error) {
		a, err = dataplane.OpenAgent(dataplane.AgentConfig{
			Interface: "eth0", Bpffs: filepath.Join(p.bpffs, node.Name()+"-agent"), Forward: dataplane.Forward{Port: 8464, Address: own},
		})
		if err != nil {
			return err
		}
		return errors.Join(a.SetPeers([]netip.Addr{peer}), a.Set([]dataplane.AgentService{{
			VIP: families["IPv4"].vip.Addr(), Tagged: true, Ports: []dataplane.Port{{Proto: "tcp", Number: 80}}, Accept: everybody, Keeps: keeps,
		}}))
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if err := node.Do(func() error { return a.Close(false) }); err != nil {
			p.t.Error(err)
		}
	})
	return a
}

// A server with too much to do sends first segments on to another, beside its agent; that one answers the user itself, with its own destination. Plain
// users, and those who are not among the share, stay.
func TestNetRedirect(t *testing.T) {
	for name, keeps := range map[string]bool{"connections are kept": true, "and not": false} {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			e := families["IPv4"]
			busy, idle := p.agent(p.s1, e.s1.Addr(), e.s2.Addr(), keeps), p.agent(p.s2, e.s2.Addr(), e.s1.Addr(), keeps)
			p.server(p.s1)
			p.server(p.s2)
			at1, at2 := p.listen(p.s1, e.vip.String()), p.listen(p.s2, e.vip.String())
			group := e.vip.Addr()
			redirect := func(share int) {
				if err := busy.Redirect(group, share, e.s2.Addr()); err != nil {
					t.Fatal(err)
				}
			}
			redirect(dataplane.ShedAll)
			p.echo(p.connect(e.vip, at1)) // a plain user
			client := p.client()
			is := func(l *net.TCPListener, destination netip.AddrPort) {
				t.Helper()
				c := p.connect(e.vip, l)
				p.echo(c)
				if is := connectionOf(t, client, c.flow()); is.Destination != destination {
					t.Errorf("the user's host has %+v, want it at %s", is, destination)
				}
			}
			is(at2, e.s2)
			redirect(0)
			is(at1, e.s1)
			redirect(1) // of 1024 users, and not this one
			is(at1, e.s1)
			if share, to, err := busy.Redirecting(group); share != 1 || to != e.s2.Addr() || err != nil {
				t.Errorf("redirects %d to %s, %v", share, to, err)
			}
			n, err := busy.Counters()
			m, err2 := idle.Counters()
			if err = errors.Join(err, err2); err != nil || n.Redirected != 1 || n.ForwardFailed+m.NotPeer+m.NotMine != 0 {
				t.Errorf("counted %+v, %+v, %v", n, m, err)
			}
		})
	}
}
