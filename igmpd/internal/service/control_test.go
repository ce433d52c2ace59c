package service

import (
	"crypto/rand"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/igmpd/internal/kernel"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/members"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

// hubControl is the Control of tests: a hub's member that remembers whom it has heard.
type hubControl struct {
	*control.HubMember
	known []control.Member
}

func (h *hubControl) Members() []control.Member { return h.known }
func (h *hubControl) Known() []members.Known {
	return []members.Known{{Name: "s1", Role: control.Server, Address: server}}
}
func (h *hubControl) Refused() map[string]uint64 { return map[string]uint64{"bad_mac": 7} }

// channel is a hub with the two servers and the router on it.
type channel struct {
	s1, s2 *control.HubMember
	own    *hubControl
}

func newChannel(known ...control.Member) *channel {
	hub := control.NewHub(50*time.Millisecond, 250*time.Millisecond)
	c := &channel{
		s1:  hub.Join(control.Member{Name: "s1", Role: control.Server, Address: server}, nil),
		s2:  hub.Join(control.Member{Name: "s2", Role: control.Server, Address: other}, nil),
		own: &hubControl{hub.Join(control.Member{Name: "r2", Role: control.Router, Address: lanOwn}, nil), known},
	}
	c.s1.Mute(len(known) > 0) // who is known from before is not heard yet
	c.s1.SetStatus(control.Status{OK: true})
	c.s2.SetStatus(control.Status{OK: true})
	return c
}

func (c *channel) router(t *testing.T, dir string) *router {
	return startRouter(t, dir, func(o *Options) {
		o.Control = c.own
		o.Config.Control.Group = "239.80.255.1"
		o.Config.Control.Interfaces = []string{"lan", "up"}
	})
}

func (c *channel) end() {
	c.s1.Leave()
	c.s2.Leave()
	c.own.Leave()
}

// share has a server take half of the users, and stand by for the other half.
func (r *router) share(requester netip.Addr, users, standby string) {
	r.t.Helper()
	j := join.Join{
		Group: private, Requester: requester, Link: lan, Time: time.Now(), Epoch: epoch.Epoch{Term: 1, Number: 1}, Part: 1, Parts: 1,
		Owner:   portion.Set{Permit: []portion.Portion{portion.MustParse(users)}},
		Standby: portion.Set{Permit: []portion.Portion{portion.MustParse(standby)}}, KeyID: groupRecord().Keys[0].ID,
	}
	rand.Read(j.Random[:])
	s, err := join.Sign(j, groupKey)
	if err != nil {
		r.t.Fatal(err)
	}
	r.receiveMessage(requester, join.Report(s))
}

// ownerOf is whose a user is in the newest state of the kernel.
func (r *router) ownerOf(user string) steer.Owner {
	return r.fwd.Last().Private[private].Plan.Lookup(netip.MustParseAddr(user))
}

func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChannel()
		defer c.end()
		r := c.router(t, t.TempDir())
		defer r.stop()
		const even, odd = "0.0.0.0/0.0.0.1", "0.0.0.1/0.0.0.1"
		r.share(server, even, odd)
		r.share(other, odd, even)
		time.Sleep(time.Second)
		first, second := r.ownerOf("10.7.0.2"), r.ownerOf("10.7.0.3")
		if first == second || first == 0 || second == 0 {
			t.Fatalf("even at %d, odd at %d", first, second)
		}
		c.s1.Mute(true)
		began := time.Now()
		for r.ownerOf("10.7.0.2") != second && time.Since(began) < time.Second {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		if took := time.Since(began); took > 310*time.Millisecond {
			t.Errorf("users of the silent server went to its standby after %v", took)
		}
		st := r.status()
		if st.Control.Switches != 1 || st.Control.Refused["bad_mac"] != 7 {
			t.Errorf("status %v", st.Control)
		}
		if !slices.ContainsFunc(st.Joins, func(j *igmpdv1.Join) bool { return j.Requester == server.String() && j.Health == "silent" }) {
			t.Errorf("joins %v", st.Joins)
		}
		c.s1.Mute(false)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if r.ownerOf("10.7.0.2") != first {
			t.Error("the server is back, its users are not")
		}
	})
}

// A server that was silent before a restart has no users until it is heard.
func TestServerThatWasSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChannel(control.Member{Name: "s1", Role: control.Server, Address: server, Health: control.Silent})
		defer c.end()
		r := c.router(t, t.TempDir())
		defer r.stop()
		const even, odd = "0.0.0.0/0.0.0.1", "0.0.0.1/0.0.0.1"
		r.share(server, even, odd)
		r.share(other, odd, even)
		time.Sleep(time.Second)
		synctest.Wait()
		if first, second := r.ownerOf("10.7.0.2"), r.ownerOf("10.7.0.3"); first != second || first == 0 {
			t.Errorf("even at %d, odd at %d", first, second)
		}
		c.s1.Mute(false)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if first, second := r.ownerOf("10.7.0.2"), r.ownerOf("10.7.0.3"); first == second {
			t.Errorf("it is heard: all at %d", first)
		}
	})
}

func TestControlGroupIsForwardedForMembersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChannel()
		defer c.end()
		r := c.router(t, t.TempDir())
		defer r.stop()
		time.Sleep(time.Second)
		synctest.Wait()
		group := netip.MustParseAddr("239.80.255.1")
		want := []kernel.Route{
			{Group: group, Source: server, In: []string{"lan"}, Out: []string{"up"}},
			{Group: group, Source: other, In: []string{"lan"}, Out: []string{"up"}},
		}
		if got := r.fwd.Last().Public; !reflect.DeepEqual(got, want) {
			t.Errorf("routes %+v, want %+v", got, want)
		}
	})
}

// What a restart knows of the channel is in its first state.
func TestControlMembersOfASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := newChannel()
		r := c.router(t, dir)
		time.Sleep(time.Second)
		r.stop()
		c.end()
		known := KnownMembers(dir)
		if len(known) != 1 || known[0].Name != "s1" {
			t.Fatalf("known %+v", known)
		}
		c = newChannel(control.Member{Name: "s1", Role: control.Server, Address: server})
		defer c.end()
		r = c.router(t, dir)
		defer r.stop()
		if first := r.fwd.States()[0].Public; !slices.ContainsFunc(first, func(r kernel.Route) bool { return r.Source == server }) {
			t.Errorf("first state: %+v", first)
		}
	})
}

// Agents join the control group so that switches which snoop bring it: that makes nobody its owner.
func TestJoinOfTheControlGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChannel()
		defer c.end()
		r := startRouter(t, t.TempDir(), func(o *Options) {
			o.Control = c.own
			o.Config.Control.Group = private.String() // whose key is there
			o.Config.Control.Interfaces = []string{"lan", "up"}
		})
		defer r.stop()
		r.share(server, "0.0.0.0/0", "0.0.0.0/0.0.0.1")
		time.Sleep(time.Second)
		synctest.Wait()
		if _, there := r.fwd.Last().Private[private]; there {
			t.Error("the control group is forwarded to owners")
		}
		if st := r.status(); st.Admitted != 1 || len(st.Joins) != 0 {
			t.Errorf("admitted %d, joins %v", st.Admitted, st.Joins)
		}
	})
}
