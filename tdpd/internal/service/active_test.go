package service

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/steering"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// reactiveChain is usersChain with what the routers' fast paths have, and notice.
type reactiveChain struct {
	*testing.T
	r1, r2, r3 *router
	tagless    map[*router]chan []vips.Tagless

	mu sync.Mutex
	in map[*router]vips.Users
	n  map[*router]int // times that something was brought in
}

func newReactiveChain(t *testing.T) *reactiveChain {
	c := &reactiveChain{T: t, tagless: map[*router]chan []vips.Tagless{}, in: map[*router]vips.Users{}, n: map[*router]int{}}
	c.r1, c.r2, c.r3 = usersChain(t)
	for _, r := range c.all() {
		c.tagless[r] = make(chan []vips.Tagless)
		c.do(r, func(time.Time) {
			r.Tagless = c.tagless[r]
			r.Steer = func(u vips.Users) error {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.in[r] = u
				c.n[r]++
				return nil
			}
		})
	}
	return c
}

func (c *reactiveChain) all() []*router { return []*router{c.r1, c.r2, c.r3} }

func (c *reactiveChain) do(r *router, f func(time.Time)) {
	c.Helper()
	if err := r.Do(c.Context(), f); err != nil {
		c.Fatal(err)
	}
}

// comes has a router notice that packets of users came by an interface from a neighbor.
func (c *reactiveChain) comes(r *router, iface int, from string, users ...string) {
	var all []vips.Tagless
	for _, u := range users {
		vip := addr("192.0.2.80")
		if addr(u).Is6() {
			vip = addr("2001:db8::80")
		}
		all = append(all, vips.Tagless{VIP: vip, User: addr(u), Interface: iface, From: []netip.Addr{addr(from)}})
	}
	c.tagless[r] <- all
	c.wait()
}

// wait gives plans the time to be made.
func (c *reactiveChain) wait() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// tags are the users that a router sends along a tree, of some; the server's number behind them.
func (c *reactiveChain) tags(r *router, users ...string) (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := c.in[r]
	for _, u := range users {
		vip, a := addr("192.0.2.80"), addr(u)
		if a.Is6() {
			vip, a = addr("2001:db8::80"), steer.Standin(a)
		}
		if in.VIPs[vip] == nil {
			continue
		}
		if hops := in.Trees[in.VIPs[vip].Lookup(a)]; len(hops) == 1 && hops[0].Via.IsValid() {
			out = append(out, u)
		}
	}
	return out
}

func (c *reactiveChain) want(when string, r *router, want ...string) {
	c.Helper()
	if got := c.tags(r, "10.1.0.0", "10.1.0.2", "10.1.0.4", "2001:db8:7::1"); !slices.Equal(got, want) {
		c.Errorf("%s: %s tags %v, want %v", when, r.name, got, want)
	}
}

// counted checks a router's counters.
func (c *reactiveChain) counted(r *router, refused, tagless string) {
	c.Helper()
	c.do(r, func(time.Time) {
		if got := fmt.Sprint(r.users.refused, r.users.tagless); got != "map["+refused+"] map["+tagless+"]" {
			c.Errorf("%s has counted %s, want [%s] [%s]", r.name, got, refused, tagless)
		}
	})
}

// reactive is a director's word with s1 for all users; s2, whose tree nobody has, takes them in an even epoch.
func reactive(number uint64) steering.Binding {
	b := said(number, number)
	b.VIPs, b.Reactive, b.Lifetime = append(b.VIPs, addr("2001:db8::80")), true, time.Hour
	for i := range b.Allocation.Owner {
		b.Allocation.Owner[i], b.Allocation.Standby[i] = uint16((number+1)%2), uint16(number%2)
	}
	return b
}

// Users are tagged upstream, router by router, when packets of theirs have come without a tag, and nobody else is; an epoch moves them.
func TestUsersAreTaggedAfterTheirFirstPacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newReactiveChain(t)
		c.r3.say(t, reactive(1))
		c.wait()
		c.want("said", c.r3, "10.1.0.0", "10.1.0.2", "10.1.0.4", "2001:db8:7::1")
		c.want("said", c.r2)
		c.want("said", c.r1)
		for r, want := range map[*router]bool{c.r1: false, c.r2: true, c.r3: true} {
			if got := c.in[r].Tell[addr("192.0.2.80")]; got != want {
				t.Errorf("%s notices what comes without a tag: %v", r.name, got)
			}
		}
		c.comes(c.r3, 2, "10.0.23.2", "10.1.0.0", "2001:db8:7::1")
		c.want("two have come", c.r2, "10.1.0.0", "2001:db8:7::1")
		c.want("two have come", c.r1)
		c.comes(c.r2, 2, "10.0.12.1", "10.1.0.0")
		c.want("one has come further up", c.r1, "10.1.0.0")
		c.comes(c.r3, 2, "10.0.23.2", "10.1.0.2")
		c.want("another one", c.r2, "10.1.0.0", "10.1.0.2", "2001:db8:7::1")
		c.r3.say(t, reactive(2))
		c.wait()
		c.want("a server without a tree", c.r2)
		c.r3.say(t, reactive(3))
		c.wait()
		c.want("an epoch", c.r2, "10.1.0.0", "10.1.0.2", "2001:db8:7::1")
		c.want("an epoch", c.r1, "10.1.0.0")
		answer := map[string]string{}
		for _, r := range c.all() {
			c.do(r, func(time.Time) {
				st := r.steeredStatus()[0]
				answer[r.name] = fmt.Sprint(st.GetReactive(), st.GetAll(), st.GetActive())
			})
		}
		if want := map[string]string{"r1": "true false 1", "r2": "true false 3", "r3": "true true 0"}; !maps.Equal(answer, want) {
			t.Errorf("told of it: %v, want %v", answer, want)
		}
		c.counted(c.r2, "", "told:1")
		c.counted(c.r3, "", "told:3")
		proactive := reactive(5)
		proactive.Reactive = false
		c.r3.say(t, proactive)
		c.wait()
		c.want("not reactive any more", c.r1, "10.1.0.0", "10.1.0.2", "10.1.0.4", "2001:db8:7::1")
		stopAll(t, c.all()...)
	})
}

// After its time a user's next packet goes by the route; who is told again stays, and a word of many makes few plans.
func TestActiveUsersForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newReactiveChain(t)
		c.r3.say(t, reactive(1))
		c.comes(c.r3, 2, "10.0.23.2", "10.1.0.0", "10.1.0.2")
		time.Sleep(4 * time.Minute)
		c.comes(c.r3, 2, "10.0.23.2", "10.1.0.2")
		time.Sleep(time.Minute)
		c.wait()
		c.want("five minutes", c.r2, "10.1.0.2")
		c.comes(c.r3, 2, "10.0.23.2", "10.1.0.0")
		c.want("anew", c.r2, "10.1.0.0", "10.1.0.2")
		time.Sleep(5 * time.Minute)
		c.wait()
		c.want("all are over", c.r2)
		before := c.n[c.r2]
		var many []string
		for i := range 3 * binding.MaxActive {
			many = append(many, netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}).String())
		}
		c.comes(c.r3, 2, "10.0.23.2", many...)
		for i := range 100 {
			c.tagless[c.r3] <- []vips.Tagless{{VIP: addr("192.0.2.80"), User: netip.AddrFrom4([4]byte{10, 3, 0, byte(i)}), Interface: 2, From: []netip.Addr{addr("10.0.23.2")}}}
			time.Sleep(time.Millisecond)
		}
		c.wait()
		if got := c.tags(c.r2, many...); len(got) != len(many) {
			t.Errorf("%d of %d are tagged", len(got), len(many))
		}
		if n := c.n[c.r2] - before; n > 10 {
			t.Errorf("%d plans of them, within a few pauses", n)
		}
		stopAll(t, c.all()...)
	})
}

// Whom a packet did not come from is not told; what is no user, or comes of who is no neighbor upstream, is nobody's matter.
func TestTaglessOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newReactiveChain(t)
		c.r3.say(t, reactive(1))
		c.comes(c.r3, 2, "10.0.23.99", "10.1.0.0")
		c.comes(c.r3, 9, "10.0.23.2", "10.1.0.0")
		c.comes(c.r2, 3, "10.0.23.3", "10.1.0.0") // whom it has of, downstream
		c.comes(c.r3, 2, "10.0.23.2", "224.0.0.1", "127.0.0.1")
		c.want("nobody", c.r2)
		c.want("nobody", c.r1)
		c.counted(c.r3, "", "unknown_neighbor:2")
		c.counted(c.r2, "", "not_upstream:1")
		stopAll(t, c.all()...)
	})
}

// A word of who is active is taken of who has told the binding, and no longer than may be.
func TestActiveUsersRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newReactiveChain(t)
		c.r3.say(t, reactive(1))
		tell := func(r *router, to string, a binding.Active) {
			t.Helper()
			c.do(r, func(now time.Time) {
				for _, p := range r.sortedPeers() {
					if netip.AddrFrom4(p.id.LSR) == addr(to) {
						r.tellActive(now, p, a)
					}
				}
			})
			c.wait()
		}
		users := []netip.Addr{addr("10.1.0.0")}
		tell(c.r1, "2.2.2.2", binding.Active{Service: "web", Users: users})
		tell(c.r3, "2.2.2.2", binding.Active{Service: "mail", Users: users})
		tell(c.r3, "2.2.2.2", binding.Active{Service: "web", Users: []netip.Addr{users[0], addr("239.1.1.1")}})
		tell(c.r3, "2.2.2.2", binding.Active{Service: "web", Users: slices.Repeat(users, binding.MaxActive+1)})
		tell(c.r2, "3.3.3.3", binding.Active{Service: "web", Users: users}) // whom a director has told itself
		c.want("refused", c.r2)
		c.counted(c.r2, "no_user:1 not_told:2 too_many:1", "")
		c.counted(c.r3, "not_told:1", "")
		c.do(c.r2, func(time.Time) {
			for _, p := range c.r2.sortedPeers() {
				p.takesUsers = false
			}
		})
		tell(c.r3, "2.2.2.2", binding.Active{Service: "web", Users: users})
		c.counted(c.r2, "no_user:1 not_offered:1 not_told:2 too_many:1", "")
		stopAll(t, c.all()...)
	})
}

// Users who are not active go on without labels, by whatever route leads to the director: the routers there see whose packets they are.
func TestUsersByTheRouteHaveNoLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newReactiveChain(t)
		vip := prefix("192.0.2.0/24")
		c.r3.routes.Send(routes.Change{Routes: map[netip.Prefix]*routes.Route{vip: via("", 3)}})
		c.r2.routes.Send(routes.Change{Routes: map[netip.Prefix]*routes.Route{vip: via("10.0.23.3", 3)}})
		c.r1.routes.Send(routes.Change{Routes: map[netip.Prefix]*routes.Route{vip: via("10.0.12.2", 2)}})
		c.wait()
		labelled := func(when string, want bool) {
			t.Helper()
			if hops := c.r1.kernel.State().Prefixes[vip]; len(hops) == 1 && len(hops[0].Labels) == 1 != want || len(hops) != 1 && want {
				t.Errorf("%s: r1 sends packets to the VIP by %v, want a label: %v", when, hops, want)
			}
		}
		labelled("before", true)
		c.r3.say(t, reactive(1))
		c.wait()
		labelled("reactive", false)
		c.r3.say(t, steering.Binding{Service: "web", Sequence: 2})
		c.wait()
		labelled("withdrawn", true)
		stopAll(t, c.all()...)
	})
}
