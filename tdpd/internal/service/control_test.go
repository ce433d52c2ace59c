package service

import (
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// hubControl is the Control of tests: a hub's member that remembers whom it has heard.
type hubControl struct {
	*control.HubMember
	known []control.Member
}

func (h *hubControl) Members() []control.Member { return h.known }

// steeringRouter is a router with servers s1 and s2 on a channel, and what was last in its fast path.
type steeringRouter struct {
	*router
	hub         *control.Hub
	s1, s2, own *control.HubMember

	mu     sync.Mutex
	in     vips.Users
	failed error
}

// startSteering starts one; who is known from before is not heard yet.
func startSteering(t *testing.T, known ...control.Member) *steeringRouter {
	hub := control.NewHub(50*time.Millisecond, 250*time.Millisecond)
	r := &steeringRouter{
		hub: hub,
		s1:  hub.Join(control.Member{Name: "s1", Role: control.Server, Address: server}, nil),
		s2:  hub.Join(control.Member{Name: "s2", Role: control.Server, Address: addr("10.9.0.81")}, nil),
		own: hub.Join(control.Member{Name: "r3", Role: control.Router, Address: addr("10.9.0.3")}, nil),
	}
	r.s1.Mute(len(known) > 0)
	r.s1.SetStatus(control.Status{OK: true})
	r.s2.SetStatus(control.Status{OK: true})
	r.router = begin(t, transport.NewFabric(), "r3", "3.3.3.3", filepath.Join(t.TempDir(), "3"), kernel.State{}, func(o *Options) {
		o.Config.Users = config.Users{Upstream: []netip.Addr{addr("2.2.2.2")}}
		o.Control = &hubControl{r.own, known}
		o.Steer = func(u vips.Users) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.failed == nil {
				r.in = u
			}
			return r.failed
		}
	})
	tellLast(r.router)
	synctest.Wait()
	return r
}

func (r *steeringRouter) end(t *testing.T) {
	stopAll(t, r.router)
	for _, m := range []*control.HubMember{r.s1, r.s2, r.own} {
		m.Leave()
	}
}

// fail has all fail that is to come into the fast path; nil: no more.
func (r *steeringRouter) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = err
}

func (r *steeringRouter) plan(vip string) *steer.Plan {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.in.VIPs[addr(vip)]
}

// owners are those of users of s1 and of s2, as said gives them.
func (r *steeringRouter) owners() (first, second steer.Owner) {
	p := r.plan("192.0.2.80")
	return p.Lookup(addr("10.1.0.0")), p.Lookup(addr("10.1.0.1"))
}

// Users of a server that falls silent, or says that it does not serve, go to its standby, and come back when it does.
func TestUsersOfAFailingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startSteering(t)
		defer r.end(t)
		r.say(t, said(1, 1))
		time.Sleep(time.Second)
		s1, s2 := r.owners()
		if s1 == 0 || s2 == 0 || s1 == s2 {
			t.Fatalf("users are owners' %d and %d", s1, s2)
		}
		want := func(when string, first, second steer.Owner) {
			t.Helper()
			if a, b := r.owners(); a != first || b != second {
				t.Errorf("%s: users of s1 and s2 go to %d and %d, want %d and %d", when, a, b, first, second)
			}
		}
		r.s1.Mute(true)
		began := time.Now()
		for time.Since(began) < time.Second {
			if first, _ := r.owners(); first == s2 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(began); took > 260*time.Millisecond {
			t.Errorf("users of the silent server went to its standby after %v", took)
		}
		r.s1.Mute(false)
		time.Sleep(60 * time.Millisecond)
		want("back", s1, s2)
		r.s2.SetStatus(control.Status{Why: "no answer"})
		want("s2 is unwell", s1, s1)
		r.s1.SetStatus(control.Status{Why: "no answer"})
		want("both are", s1, s2)
		r.s1.SetStatus(control.Status{OK: true})
		want("s1 is well again", s1, s1)
		r.s2.SetStatus(control.Status{OK: true})
		r.s2.SetStatus(control.Status{Why: control.Deaf})
		want("s2 hears nobody, and serves", s1, s2)
		r.s2.SetStatus(control.Status{OK: true})
		if err := r.s1.Pause(time.Second); err != nil {
			t.Fatal(err)
		}
		r.s1.Mute(true)
		time.Sleep(900 * time.Millisecond)
		want("s1 restarts", s1, s2)
		time.Sleep(400 * time.Millisecond)
		want("s1 has not come back", s2, s2)
		r.s2.Mute(true)
		time.Sleep(time.Second)
		want("nobody is heard: it is the channel", s1, s2)
	})
}

// What is known from before a restart: a server that was silent is, until it is heard; of others silence counts when it is certain.
func TestUsersOverARestartOfWhoListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startSteering(t, control.Member{Name: "s1", Role: control.Server, Address: server, Health: control.Silent})
		defer r.end(t)
		r.say(t, said(1, 1))
		first, second := r.owners()
		if first != second || first == 0 {
			t.Errorf("users of the server that was silent go to %d, those of the other to %d", first, second)
		}
		r.s1.Mute(false)
		time.Sleep(60 * time.Millisecond)
		if first, second = r.owners(); first == second {
			t.Errorf("it is heard: all users go to %d", first)
		}
	})
}

// Only the plans of services that the server takes part in are made anew.
func TestOtherServicesKeepTheirPlans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startSteering(t)
		defer r.end(t)
		other := said(1, 1)
		other.Service, other.VIPs = "mail", []netip.Addr{addr("192.0.2.25")}
		other.Allocation.Servers = []string{"s1", "s9"} // this s1 is another machine
		other.Allocation.Addresses = []netip.Addr{addr("10.9.9.1"), addr("10.9.9.9")}
		third := said(1, 1)
		third.Service, third.VIPs, third.Allocation.Servers = "ftp", []netip.Addr{addr("192.0.2.21")}, []string{"s3", "s4"}
		r.say(t, said(1, 1))
		r.say(t, other)
		r.say(t, third)
		web, mail, ftp := r.plan("192.0.2.80"), r.plan("192.0.2.25"), r.plan("192.0.2.21")
		r.s1.Mute(true)
		time.Sleep(300 * time.Millisecond)
		if r.plan("192.0.2.80") == web {
			t.Error("its users are where they were")
		}
		if !r.plan("192.0.2.25").Equal(mail) {
			t.Error("a server of the same name lost its users, too")
		}
		if r.plan("192.0.2.21") != ftp {
			t.Error("the plan of a service that it takes no part in was made anew")
		}
	})
}

// A service without servers has no user, while the channel is there: the router hears a director. A server that is on no channel is not gone.
func TestServiceWithoutServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startSteering(t)
		defer r.end(t)
		d1 := r.hub.Join(control.Member{Name: "d1", Role: control.Director, Address: addr("10.9.0.9")}, nil)
		defer d1.Leave()
		other := said(1, 1)
		other.Service, other.VIPs, other.Allocation.Servers = "mail", []netip.Addr{addr("192.0.2.25")}, []string{"s1", "s9"}
		r.say(t, said(1, 1))
		r.say(t, other)
		time.Sleep(5 * time.Second)
		r.s1.Mute(true)
		r.s2.SetStatus(control.Status{Why: "no answer"})
		time.Sleep(400 * time.Millisecond)
		if first, second := r.owners(); first == 0 || second == 0 {
			t.Errorf("for a moment: users of s1 and s2 go to %d and %d", first, second)
		}
		time.Sleep(200 * time.Millisecond)
		if first, second := r.owners(); first != 0 || second != 0 {
			t.Errorf("without servers: users of s1 and s2 go to %d and %d", first, second)
		}
		if p := r.plan("192.0.2.25"); p.Lookup(addr("10.1.0.0")) == 0 {
			t.Error("s9 was never heard, and is gone")
		}
		r.s2.SetStatus(control.Status{OK: true})
		if first, second := r.owners(); first == 0 || first != second {
			t.Errorf("s2 is back: users of s1 and s2 go to %d and %d", first, second)
		}
	})
}
