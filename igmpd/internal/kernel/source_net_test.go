package kernel

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
)

func TestNetSourceMode(t *testing.T) {
	r := newRig(t)
	l := r.open(rigConfig(ModeSource, false, "", ""))
	r.set(l, rigState(quarters(t, 1, 2, 3)))
	r.expect(group, 1, 2, 3, 0)
	var c Counters
	testnet.Eventually(t, 5*time.Second, func() bool { // nobody gets what is refused: its upcalls may still be under way
		var err error
		c, err = l.Counters()
		return err == nil && c.Sources == 32 && c.Refused == 8 && c.NoOwner == 8
	}, "counters ", &c)
	r.set(l, rigState(quarters(t, 3, 0, 2, 1))) // every source moves
	r.expect(group, 3, 0, 2, 1)

	// The group goes, and its entries with it.
	r.set(l, State{Interfaces: interfaces("users", "s1", "s2", "s3")})
	if c, _ = l.Counters(); c.Sources != 0 {
		t.Errorf("%d entries of a group that is gone", c.Sources)
	}
	r.set(l, rigState(quarters(t, 1, 2, 3)))
	r.expect(group, 1, 2, 3, 0)
	r.quiet()
}

func TestNetSourceEntriesAreCapped(t *testing.T) {
	r := newRig(t)
	config := rigConfig(ModeSource, false, "", "")
	config.SourceEntriesMax = 8
	l := r.open(config)
	r.set(l, rigState(quarters(t, 1, 2, 3)))
	for i := range 64 {
		c := r.sender(userAddr(100 + i))
		if _, err := c.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(group, 9000)); err != nil {
			t.Fatal(err)
		}
		if i%4 != 3 {
			select {
			case a := <-r.arrivals:
				if a.server != i%4+1 {
					t.Errorf("source %d came to server %d", i, a.server)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("source %d did not come", i)
			}
		}
	}
	testnet.Eventually(t, 5*time.Second, func() bool {
		c, err := l.Counters()
		return err == nil && c.Sources == 8 && c.Refused == 2 && c.Evicted == 64-8
	}, "6 entries, 2 refusals")
	out, err := r.router.Run("sh", "-c", "ip mroute show table all | wc -l")
	if err != nil || out != "8\n" {
		t.Errorf("the kernel has %s entries: %v", out, err)
	}
}

func TestNetPublicGroups(t *testing.T) {
	r := newRig(t)
	l := r.open(rigConfig(ModeSource, false, "", ""))
	ifaces := interfaces("users", "s1", "s2", "s3")
	for _, c := range []struct {
		name   string
		routes []Route
		want   [4]int // of the four quarters
	}{
		{"standing", []Route{{Group: publicGrp, In: []string{"users"}, Out: []string{"s2"}}}, [4]int{2, 2, 2, 2}},
		{"on demand", []Route{{Group: publicGrp, In: []string{"users", "s1", "s3"}, Out: []string{"users", "s3"}}}, [4]int{3, 3, 3, 3}},
		{"not from there", []Route{{Group: publicGrp, In: []string{"s1"}, Out: []string{"s2"}}}, [4]int{}},
		{"a source of its own", []Route{
			{Group: publicGrp, In: []string{"users"}, Out: []string{"s1"}},
			{Group: publicGrp, Source: userAddr(101), In: []string{"users"}},
		}, [4]int{1, 1, 1, 1}},
		{"standing again", []Route{{Group: publicGrp, In: []string{"users"}, Out: []string{"s1"}}}, [4]int{1, 1, 1, 1}},
	} {
		t.Log(c.name)
		r.set(l, State{Interfaces: ifaces, Public: c.routes})
		if c.name == "a source of its own" {
			r.send(publicGrp, userAddr(101), "blocked")
			r.send(publicGrp, userAddr(102), "through")
			if a := r.next(); a.text != "through" || a.server != 1 {
				t.Errorf("%+v", a)
			}
			continue
		}
		r.expect(publicGrp, c.want[:]...)
	}
	r.quiet()
}

func TestNetInterfaceComesBack(t *testing.T) {
	r := newRig(t)
	l := r.open(rigConfig(ModeSource, false, "", ""))
	state := rigState(quarters(t, 1, 1, 1))
	state.Interfaces = append(state.Interfaces, Interface{Name: "late"})
	p := state.Private[group]
	p.Owners = map[steer.Owner]string{1: "late"}
	state.Private[group] = p
	if err := r.router.Do(func() error { return l.Set(state) }); err == nil {
		t.Error("an interface that does not exist is no error")
	}
	for i := range 2 {
		s4 := r.net.Node(fmt.Sprintf("s4-%d", i))
		r.net.Link(r.router, "late", "10.0.14.1/24", s4, "eth0", "10.0.14.2/24")
		s4.Route("default", "10.0.14.1")
		r.listen(s4, 4)
		r.set(l, state)
		r.expect(group, 4, 4, 4, 0)
		if out, err := r.router.Run("ip", "link", "del", "late"); err != nil {
			t.Fatal(out)
		}
	}
}
