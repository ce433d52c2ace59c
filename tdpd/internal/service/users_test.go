package service

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/steer"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/steering"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/vips"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// usersChain is r1 - r2 - r3: r3 has the director, r2 takes bindings of it and tells r1, who takes them of r2.
func usersChain(t *testing.T, change ...func(name string, u *config.Users)) (r1, r2, r3 *router) {
	dir, f := t.TempDir(), transport.NewFabric()
	make := func(name, id string, u config.Users) *router {
		u.Active = 5 * time.Minute
		for _, c := range change {
			c(name, &u)
		}
		return begin(t, f, name, id, filepath.Join(dir, name), kernel.State{}, func(o *Options) { o.Config.Users = u })
	}
	r1 = make("r1", "1.1.1.1", config.Users{Accept: []config.UsersAccepted{{From: addr("2.2.2.2")}}})
	r2 = make("r2", "2.2.2.2", config.Users{Accept: []config.UsersAccepted{{From: addr("3.3.3.3")}}, Upstream: []netip.Addr{addr("1.1.1.1")}})
	r3 = make("r3", "3.3.3.3", config.Users{Upstream: []netip.Addr{addr("2.2.2.2")}})
	f.Link(r1.net, "a", addr("10.0.12.1"), r2.net, "a", addr("10.0.12.2"))
	f.Link(r2.net, "b", addr("10.0.23.2"), r3.net, "a", addr("10.0.23.3"))
	tell(r1, r2, r3)
	time.Sleep(20 * time.Second)
	synctest.Wait()
	return r1, r2, r3
}

// said is a director's word, with more parts than one PDU takes.
func said(sequence, number uint64) steering.Binding {
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: number}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 14}, Servers: []string{"s1", "s2"},
		Addresses: []netip.Addr{server, addr("10.9.0.81")},
	}
	for cell := range a.Cells() {
		a.Owner, a.Standby = append(a.Owner, uint16(cell%2)), append(a.Standby, uint16((cell+1)%2))
	}
	return steering.Binding{
		Service: "web", VIPs: []netip.Addr{addr("192.0.2.80")}, Sequence: sequence, Allocation: a, Lifetime: 30 * time.Second, Hold: time.Minute,
	}
}

func (r *router) say(t *testing.T, b steering.Binding) {
	t.Helper()
	err := errors.New("not asked")
	if doErr := r.Do(t.Context(), func(now time.Time) { err = r.Bind(now, b) }); doErr != nil || err != nil {
		t.Fatalf("%s: %v, %v", r.name, doErr, err)
	}
	synctest.Wait()
}

// steers checks by what epoch users are steered; 0: by none.
func steers(t *testing.T, when string, number uint64, routers ...*router) {
	t.Helper()
	for _, r := range routers {
		var got uint64
		if err := r.Do(t.Context(), func(time.Time) {
			b, _ := r.Steered("web")
			got = b.Allocation.Epoch.Number
		}); err != nil {
			t.Fatal(err)
		}
		if got != number {
			t.Errorf("%s: %s steers by %d, want %d", when, r.name, got, number)
		}
	}
}

func stopAll(t *testing.T, routers ...*router) {
	for _, r := range routers {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}
}

// A director's word goes upstream, router by router; it is refreshed, replaced and withdrawn the same way.
func TestUsersAreBoundUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r1, r2, r3 := usersChain(t)
		r3.say(t, said(1, 1))
		steers(t, "said", 1, r1, r2, r3)
		for range 10 {
			time.Sleep(20 * time.Second)
			r3.say(t, said(1, 1))
		}
		steers(t, "refreshed", 1, r1, r2, r3)
		r3.say(t, said(2, 2))
		steers(t, "replaced", 2, r1, r2, r3)
		r3.say(t, steering.Binding{Service: "web", Sequence: 3})
		steers(t, "withdrawn", 0, r1, r2, r3)
		stopAll(t, r1, r2, r3)
	})
}

// That nobody serves goes upstream like any word, with what users get then: all routers refuse them.
func TestNobodyIsBoundUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := map[string]vips.Users{}
		var mu sync.Mutex
		r1, r2, r3 := usersChain(t)
		for _, r := range []*router{r1, r2, r3} {
			if err := r.Do(t.Context(), func(time.Time) {
				r.Steer = func(u vips.Users) error {
					mu.Lock()
					defer mu.Unlock()
					in[r.name] = u
					return nil
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		vip := addr("192.0.2.80")
		want := func(when string, refuse vips.Refusal, served bool) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			for name, u := range in {
				if p := u.VIPs[vip]; p == nil || u.Refuse[vip] != refuse || (p.Lookup(addr("10.1.0.0")) != 0) != served {
					t.Errorf("%s: %s has %+v", when, name, u)
				}
			}
			if len(in) != 3 {
				t.Errorf("%s: %d routers steer", when, len(in))
			}
		}
		b := said(1, 1)
		b.Refuse = steering.Unreachable
		r3.say(t, b)
		want("said", vips.Unreachable, true)
		b.Allocation, b.Nobody, b.Refuse = alloc.Allocation{Epoch: epoch.Epoch{Term: 1, Number: 2}}, true, steering.Reset
		r3.say(t, b)
		want("nobody serves", vips.Reset, false)
		for range 5 {
			time.Sleep(20 * time.Second)
			r3.say(t, b)
		}
		want("refreshed", vips.Reset, false)
		stopAll(t, r1, r2, r3)
	})
}

// A director that says nothing any more has its word held, everywhere for the same time.
func TestUsersOfASilentDirectorAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r1, r2, r3 := usersChain(t)
		r3.say(t, said(1, 1))
		time.Sleep(89 * time.Second)
		synctest.Wait()
		steers(t, "held", 1, r1, r2, r3)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		steers(t, "held for long enough", 0, r1, r2, r3)
		stopAll(t, r1, r2, r3)
	})
}

// A session that breaks and comes back loses nothing; the neighbor is told all there is, and a router that comes anew as well.
func TestUsersOverABrokenSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r1, r2, r3 := usersChain(t)
		r3.say(t, said(1, 1))
		r2.net.Break()
		time.Sleep(25 * time.Second)
		r3.say(t, said(1, 1))
		time.Sleep(25 * time.Second)
		r3.say(t, said(1, 1))
		time.Sleep(25 * time.Second)
		r3.say(t, said(2, 2))
		steers(t, "back", 2, r1, r2, r3)
		stopAll(t, r1, r2, r3)
	})
}

// Who is not in the access list binds nothing; who does not take part is not told, and its session goes on.
func TestUsersOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r1, r2, r3 := usersChain(t, func(name string, u *config.Users) {
			switch name {
			case "r1":
				*u = config.Users{}
			case "r2":
				u.Accept[0].VIPs = []netip.Prefix{prefix("198.51.100.0/24")}
			}
		})
		r3.say(t, said(1, 1))
		steers(t, "not its VIP", 0, r2)
		other := said(2, 2)
		other.VIPs = []netip.Addr{addr("198.51.100.80")}
		r3.say(t, other)
		steers(t, "its VIP", 2, r2)
		steers(t, "without the capability", 0, r1)
		if err := r2.Do(t.Context(), func(time.Time) {
			if got := r2.users.refused; len(got) != 1 || got["not_trusted"] != 1 {
				t.Errorf("refused are counted as %v, want one as not trusted", got)
			}
		}); err != nil {
			t.Fatal(err)
		}
		tree(t, "all the time", r1, r2, r3)
		stopAll(t, r1, r2, r3)
	})
}

// A neighbor that has not offered the capability binds nothing though it is trusted, and of two directors that disagree about an epoch the
// first one's word holds. Both are counted, by their reasons, and no session ends.
func TestUsersRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r1, r2, r3 := usersChain(t)
		r2.say(t, said(1, 1))
		other := said(1, 1)
		other.Allocation.Owner[0], other.Allocation.Standby[0] = 1, 0
		r3.say(t, other)
		steers(t, "contradicted", 1, r1, r2)
		if err := r2.Do(t.Context(), func(time.Time) {
			for _, p := range r2.sortedPeers() {
				p.takesUsers = p.id.LSR == addr("1.1.1.1").As4()
			}
		}); err != nil {
			t.Fatal(err)
		}
		r3.say(t, said(2, 2))
		steers(t, "not offered", 1, r1, r2)
		for r, want := range map[*router]string{r1: "map[]", r2: "map[contradicts:1 not_offered:1]"} {
			answer, err := r.Ask(t.Context(), &tdpdv1.Request{About: &tdpdv1.Request_Status{}})
			if got := fmt.Sprint(answer.GetStatus().GetUserBindingsRefused()); err != nil || got != want {
				t.Errorf("%s: refused %s, want %s (%v)", r.name, got, want, err)
			}
		}
		tree(t, "all the time", r1, r2, r3)
		stopAll(t, r1, r2, r3)
	})
}

// TestUsersGoAlongTrees: what holds is in the fast path, along the labels that there are, and follows them.
func TestUsersGoAlongTrees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		in := map[string]vips.Users{}
		var failure error
		fail := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			failure = err
		}
		inside := func(r *router) vips.Users {
			mu.Lock()
			defer mu.Unlock()
			return in[r.name]
		}
		r1, r2, r3 := usersChain(t, func(name string, u *config.Users) {})
		for _, r := range []*router{r1, r2, r3} {
			if err := r.Do(t.Context(), func(time.Time) {
				r.Steer = func(u vips.Users) error {
					mu.Lock()
					defer mu.Unlock()
					if failure == nil {
						in[r.name] = u
					}
					return failure
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		// leaves is where a user's packets leave: the label, and the neighbor.
		leaves := func(r *router, vip, user string) string {
			p := inside(r).VIPs[addr(vip)]
			if p == nil {
				return "nothing"
			}
			hops := inside(r).Trees[p.Lookup(addr(user))]
			if len(hops) != 1 {
				return fmt.Sprint(hops)
			}
			return fmt.Sprintf("%v to %v", hops[0].Labels, hops[0].Via)
		}
		both := said(1, 1)
		both.VIPs = append(both.VIPs, addr("2001:db8::80"))
		both.Users = []steering.User{{Address: addr("10.1.0.2"), Server: "s2"}}
		both.Split = steer.Split{prefix("10.1.0.0/24"), prefix("2001:db8:77::/48")}
		r3.say(t, both)
		label := tree(t, "converged", r1, r2, r3)
		for _, c := range []struct {
			at         *router
			user, want string
		}{
			{r1, "10.1.0.0", fmt.Sprintf("[%d] to 10.0.12.2", label[0])}, {r2, "10.1.0.0", fmt.Sprintf("[%d] to 10.0.23.3", label[1])},
			{r3, "10.1.0.0", "[] to 10.9.0.80"}, {r3, "10.1.0.1", "[] to invalid IP"}, // s2 is no server of theirs: it has no tree
			{r3, "10.1.0.2", "[] to invalid IP"},
		} {
			if got := leaves(c.at, "192.0.2.80", c.user); got != c.want {
				t.Errorf("%s at %s leaves by %s, want %s", c.user, c.at.name, got, c.want)
			}
		}
		for _, vip := range both.VIPs {
			split := inside(r1).Split[vip]
			if fmt.Sprint(split.Prefixes) != fmt.Sprint(both.Split) || split.Plan == nil || split.Plan.Users() > 0 || split.Plan != inside(r1).VIPs[addr("2001:db8::80")] {
				t.Errorf("split users of %v go by %+v", vip, split)
			}
		}
		six := addr("2001:db8:7::1")
		want := inside(r1).VIPs[addr("192.0.2.80")].Lookup(steer.Standin(six))
		if got := inside(r1).VIPs[addr("2001:db8::80")].Lookup(steer.Standin(six)); got != want || got == 0 {
			t.Errorf("a user of IPv6 is owner %d's, want %d", got, want)
		}
		fail(errors.New("full"))
		r2.net.Break() // its labels are kept
		r3.routes.Send(routes.Change{Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): nil}})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		fail(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := leaves(r3, "192.0.2.80", "10.1.0.0"); got != "[] to invalid IP" {
			t.Errorf("the route has gone, and the failure; still %s", got)
		}
		r3.say(t, steering.Binding{Service: "web", Sequence: 2})
		if got := leaves(r3, "192.0.2.80", "10.1.0.0"); got != "nothing" || len(inside(r3).Trees) > 0 {
			t.Errorf("withdrawn: %s, trees %v", got, inside(r3).Trees)
		}
		stopAll(t, r1, r2, r3)
	})
}

// A server's number is another one's only when no plan in force has it: until then the number's tree would take the first one's users.
func TestNumbersOfServersThatHaveGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startSteering(t)
		defer r.end(t)
		owners := func(number uint64, servers ...netip.Addr) (steer.Owner, steer.Owner) {
			b := said(number, number)
			b.Allocation.Addresses = servers
			r.say(t, b)
			time.Sleep(2 * time.Second) // it is tried again
			return r.owners()
		}
		s1, s2 := owners(1, server, addr("10.9.0.81"))
		r.fail(errors.New("full"))
		r.say(t, steering.Binding{Service: "web"})
		r.fail(nil)
		third, fourth := owners(2, addr("10.9.0.82"), addr("10.9.0.83"))
		if third == s1 || third == s2 || fourth == s1 || fourth == s2 {
			t.Errorf("numbers %d and %d are used by a plan in force, the next servers have %d and %d", s1, s2, third, fourth)
		}
		if third, fourth := owners(3, addr("10.9.0.84"), addr("10.9.0.85")); third != s1 || fourth != s2 {
			t.Errorf("numbers %d and %d are not used again: %d and %d are", s1, s2, third, fourth)
		}
	})
}

// store keeps bindings of users in memory.
type store struct {
	mu    sync.Mutex
	saves int
	kept  binding.Kept
	load  error
	save  error

	touched time.Time
}

func (s *store) Load() (binding.Kept, error) {
	owners := map[netip.Addr]steer.Owner{}
	maps.Copy(owners, s.kept.Owners)
	return binding.Kept{At: time.Now(), Bindings: s.kept.Bindings, Owners: owners}, s.load
}
func (s *store) Remove() error { return nil }

func (s *store) Touch(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched = now
	return s.save
}

func (s *store) Save(k binding.Kept) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.save != nil {
		return s.save
	}
	s.saves++
	s.kept = k
	return nil
}

func (s *store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.save = err
}

func (s *store) want(t *testing.T, when string, saves int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saves != saves {
		t.Errorf("%s: written %d times, want %d", when, s.saves, saves)
	}
}

// startKeeping is a router that keeps what is said.
func startKeeping(t *testing.T, kept *store, steer func(vips.Users) error) *router {
	r := begin(t, transport.NewFabric(), "r3", "3.3.3.3", filepath.Join(t.TempDir(), "3"), kernel.State{}, func(o *Options) {
		o.Config.Users, o.Users, o.Steer = config.Users{Upstream: []netip.Addr{addr("2.2.2.2")}}, kept, steer
	})
	tellLast(r)
	synctest.Wait()
	return r
}

// TestKeptUsers: what cannot be read keeps no router from starting, and what was said is written when it changes, not when labels do.
func TestKeptUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := &store{load: errors.New("damaged")}
		r := startKeeping(t, kept, nil)
		r.say(t, said(1, 1))
		r.routes.Send(routes.Change{Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): nil}})
		tellLast(r)
		synctest.Wait()
		r.say(t, said(1, 1))
		steers(t, "said", 1, r)
		r.say(t, said(2, 2))
		kept.want(t, "said twice", 2)
		var in vips.Users
		if err := r.Do(t.Context(), func(time.Time) { r.Steer = func(u vips.Users) error { in = u; return nil } }); err != nil {
			t.Fatal(err)
		}
		kept.fail(errors.New("no space"))
		r.say(t, said(3, 3))
		other := said(4, 4)
		other.VIPs = []netip.Addr{addr("192.0.2.81")}
		r.say(t, other)
		if in.VIPs[other.VIPs[0]] == nil {
			t.Error("what is said next waits for space")
		}
		kept.fail(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		kept.want(t, "there is space again", 3)
		stopAll(t, r)
	})
}

// TestServersAreToldLate: a process that starts again has users of servers before it is told which servers there are. They keep the trees that a process
// before has left.
func TestServersAreToldLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := &store{}
		all := routes.Change{Full: true, Interfaces: interfaces(), Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): via("10.0.1.2", 2)}}
		r := alone(t, nil, kernel.State{}, func(o *Options) { o.Users = kept })
		r.settled(all)
		r.say(t, said(1, 1))
		r.end(t)
		servers := make(chan []netip.Addr)
		var in vips.Users
		r = alone(t, map[netip.Prefix]wire.Label{host(server): 100}, kernel.State{Labels: map[uint32][]kernel.Hop{100: {push(200, "10.0.1.2", 2)}}}, func(o *Options) {
			o.Config.Servers.Addresses, o.Servers, o.Users = nil, servers, kept
			o.Steer = func(u vips.Users) error { in = u; return nil }
		})
		r.settled(all)
		tree := func() string {
			return fmt.Sprint(in.Trees[in.VIPs[addr("192.0.2.80")].Lookup(addr("10.1.0.0"))])
		}
		if got, want := tree(), fmt.Sprint([]kernel.Hop{push(200, "10.0.1.2", 2)}); got != want {
			t.Errorf("users leave by %s, want %s", got, want)
		}
		servers <- nil
		synctest.Wait()
		if got, want := tree(), fmt.Sprint([]kernel.Hop{{}}); got != want {
			t.Errorf("users of what is no server leave by %s, want %s", got, want)
		}
		r.end(t)
	})
}

// What a process before has left in the fast path goes where it has kept nothing: the service may be no more.
func TestNothingIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var in []vips.Users
		r := startKeeping(t, &store{}, func(u vips.Users) error { in = append(in, u); return nil })
		stopAll(t, r)
		if len(in) != 1 || len(in[0].VIPs) != 0 {
			t.Errorf("brought in %v, want once nothing", in)
		}
	})
}

// Every voucher's word is kept, also one that says no more than another.
func TestKeptVouchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r1, r2, r3 := usersChain(t)
		kept := &store{}
		if err := r2.Do(t.Context(), func(time.Time) { r2.Users = kept }); err != nil {
			t.Fatal(err)
		}
		r3.say(t, said(1, 1))
		r2.say(t, said(1, 1))
		kept.want(t, "two have said it", 2)
		r3.say(t, steering.Binding{Service: "web"})
		kept.want(t, "one does no more", 3)
		if b := kept.kept.Bindings; len(b) != 1 || b[0].Voucher != addr("2.2.2.2") {
			t.Errorf("kept are %d words", len(b))
		}
		stopAll(t, r1, r2, r3)
	})
}

// Exceptions alone are sent along trees, at all routers alike, and nobody once they are gone.
func TestUsersOnlyAreSteered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newReactiveChain(t)
		pinned := func(sequence uint64, users ...string) steering.Binding {
			b := said(sequence, 1)
			b.VIPs, b.UsersOnly, b.Lifetime = append(b.VIPs, addr("2001:db8::80")), true, time.Hour
			for _, u := range users {
				b.Users = append(b.Users, steering.User{Address: addr(u), Server: "s1"})
			}
			return b
		}
		each := func(when string, want ...string) {
			t.Helper()
			c.wait()
			for _, r := range c.all() {
				c.want(when, r, want...)
			}
		}
		c.r3.say(t, pinned(1, "10.1.0.2"))
		each("one is pinned", "10.1.0.2")
		c.r3.say(t, pinned(2, "10.1.0.0", "10.1.0.2"))
		each("another one", "10.1.0.0", "10.1.0.2")
		for _, r := range c.all() {
			c.do(r, func(time.Time) {
				if st := r.steeredStatus()[0]; !st.GetUsersOnly() || st.GetAll() || st.GetReactive() || st.GetUsers() != 2 {
					t.Errorf("%s says %v", r.name, st)
				}
			})
			if in := c.in[r]; len(in.Split) > 0 || in.Tell[addr("192.0.2.80")] {
				t.Errorf("%s looks at all others: %+v", r.name, in)
			}
		}
		c.r3.say(t, pinned(3, "10.1.0.0"))
		each("one is gone", "10.1.0.0")
		c.r3.say(t, steering.Binding{Service: "web", Sequence: 4})
		each("all are")
		stopAll(t, c.all()...)
	})
}
