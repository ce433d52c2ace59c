package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/pins"
	"github.com/manycast/manycast/lbd/internal/store"
)

// pinning is web, and pins users.
func pinning(mode string) service.Service {
	s := keeping(mode)
	s.Handover.Strategies = []service.Strategy{service.Pin, service.Forward}
	return s
}

func from(text string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(text), 1024) }

// Before users go their packets are to come to who has their connections, and from then on while it has them.
func TestLoserPinsItsUsers(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{pinning(service.Multicast)})
	a := followed(allocation(1, s2, s2), allocation(2, s2, s3), allocation(3, s1, s3))
	if got := applied(t, c.Committed(start, "web", a[0])).Accept[0]; !got.Tagged {
		t.Error("takes nothing that routers send to the VIP")
	}
	connected := slices.Values([]netip.AddrPort{
		from("10.1.0.3"), from("10.1.0.2"), netip.MustParseAddrPort("10.1.0.3:1025"), netip.MustParseAddrPort("[::ffff:10.1.0.5]:1024"), from("2001:db8::3"), from("2001:db8:0:1::3"),
	})
	if p := c.serving()[0].pinned(connected); len(p.Users) > 0 || c.serving()[0].MayKeep {
		t.Errorf("pins its own: %+v", p)
	}
	pin, is := c.Announced(start, "web", a[1], a[0])[1].(Pin)
	want := []netip.Addr{netip.MustParseAddr("10.1.0.3"), netip.MustParseAddr("10.1.0.5")}
	if !is || pin.Then != (announce.Prepared{Service: "web", Epoch: a[1].Epoch, Server: "s2"}) {
		t.Fatalf("announced: %+v", pin)
	}
	if p := pin.Of(connected); !slices.Equal(p.Users, want) || p.Epoch != a[1].Epoch || p.Server != "s2" || p.Service != "web" {
		t.Errorf("announced: pins %+v, want %v", p, want)
	}
	if s := c.serving()[0]; !s.MayKeep || !slices.Equal(s.pinned(connected).Users, want) {
		t.Error("announced: pins nobody when it looks again")
	}
	c.Committed(start, "web", a[1])
	if p := c.serving()[0].pinned(connected); !slices.Equal(p.Users, want) {
		t.Errorf("committed: pins %+v, want %v", p, want)
	}
	if p := c.serving()[0].pinned(slices.Values([]netip.AddrPort{from("10.1.0.5")})); !slices.Equal(p.Users, want[1:]) {
		t.Errorf("a connection is over: pins %+v, want %v", p, want[1:])
	}
	c.Committed(start, "web", a[2])
	if p := c.serving()[0].pinned(connected); len(p.Users) != 3 {
		t.Errorf("has nobody left: pins %+v, want all three", p)
	}
	if p := c.serving()[0].pinned(connected); p.Apart == 0 {
		t.Error("users of IPv6 are not counted")
	}
	back := allocation(4, s2, s3)
	c.Committed(start, "web", followed(a[2], back)[1])
	if p := c.serving()[0].pinned(connected); !slices.Equal(p.Users, want) {
		t.Errorf("some are back: pins %+v, want %v", p, want)
	}
}

// Who hears nothing of an owner does not know yet whether that is dead, where it heard nobody itself a moment ago. What is new of users whom it pins, or
// stands by for, it serves meanwhile: sent to the dead it would be lost.
func TestNothingNewGoesToWhoIsNotHeard(t *testing.T) {
	for _, mode := range []string{service.Multicast, service.Tags} {
		c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
		c.Channel(silence, true)
		c.SetServices(start, []service.Service{pinning(mode)})
		c.SetHealthy(start, true)
		say := func(now time.Time, h control.Health, names ...string) (applies bool) {
			for _, name := range names {
				applies = slices.ContainsFunc(turns(c, now, name, h, ""), func(a Action) bool { _, is := a.(Apply); return is }) || applies
			}
			return applies
		}
		say(start, control.Available, "s1", "s3", "r1")
		a := followed(allocation(1, s2, s1), withStandbys(allocation(2, s1, s1), s3, s2))
		c.Committed(start, "web", a[0])
		c.Committed(start, "web", a[1])
		owners := func(when string, want netip.Addr) {
			t.Helper()
			for what, user := range map[string]netip.Addr{"who are pinned": even, "it stands by for": odd} {
				if got := chainOf(t, c.apply().Accept[0], user).Owner; got != want {
					t.Errorf("%s, %s: users %s are %v's, want %v's", mode, when, what, got, want)
				}
			}
		}
		owners("all is well", a[1].Addresses[s1])
		cut := start.Add(time.Second)
		say(cut, control.Silent, "s1", "s3", "r1")
		owners("it is cut off", a[1].Addresses[s1])
		again := cut.Add(time.Second)
		if !say(again, control.Available, "r1", "s3") {
			t.Errorf("%s: others are heard again, and nothing is applied", mode)
		}
		owners("s1 is not heard again", netip.Addr{})
		if !say(again.Add(recovery/2), control.Available, "s1") {
			t.Errorf("%s: s1 is heard again, and nothing is applied", mode)
		}
		owners("s1 is heard again", a[1].Addresses[s1])
		say(again.Add(time.Hour), control.Silent, "s1")
		if got := chainOf(t, c.apply().Accept[0], even).Owner; got != a[1].Addresses[s3] {
			t.Errorf("%s: s1 is dead: users are %v's, want its standby's", mode, got)
		}
	}
}

// Who loses nobody, or does not pin, is prepared at once.
func TestWhoPinsNobodyIsPrepared(t *testing.T) {
	a := followed(allocation(1, s2, s1), allocation(2, s2, s3), allocation(3, s1, s3))
	transfers := pinning(service.Tags)
	transfers.Handover.Strategies = []service.Strategy{service.Transfer, service.Pin}
	for name, c := range map[string]struct {
		service service.Service
		next    int
	}{"loses nobody": {pinning(service.Tags), 1}, "forwards": {keeping(service.Tags), 2}, "transfers first": {transfers, 2}} {
		core := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
		core.SetServices(start, []service.Service{c.service})
		core.Committed(start, "web", a[0])
		if _, is := core.Announced(start, "web", a[c.next], a[0])[1].(Send); !is {
			t.Errorf("%s: is not prepared", name)
		}
	}
}

func TestPinsAreBounded(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.SetServices(start, []service.Service{pinning(service.Tags)})
	a := followed(allocation(1, s2, s2), allocation(2, s1, s1))
	c.Committed(start, "web", a[0])
	c.Committed(start, "web", a[1])
	p := c.serving()[0].pinned(func(yield func(netip.AddrPort) bool) {
		for i := range pins.Max + 7 {
			if !yield(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), 1)) {
				return
			}
		}
	})
	if len(p.Users) != pins.Max || p.Over != 7 {
		t.Errorf("pins %d and not %d, want %d and 7", len(p.Users), p.Over, pins.Max)
	}
}

func somePins(number uint64, users ...string) pins.Pins {
	p := pins.Pins{Service: "web", Server: "s2", Epoch: epoch.Epoch{Term: 1, Number: number}}
	for _, u := range users {
		p.Users = append(p.Users, netip.MustParseAddr(u))
	}
	return p
}

// What is on the bus follows what is pinned, four times a second at most unless it hurries, is renewed while somebody looks, and goes.
func TestPinBook(t *testing.T) {
	b, now := pinBook{}, start
	check := func(when string, after time.Duration, want string) {
		t.Helper()
		if now = now.Add(after); b.due(now) != want {
			t.Errorf("%s: due is %q, want %q", when, b.due(now), want)
		}
	}
	wrote := func(err error) { s := b["web"]; b.wrote(now, "web", s.version, 1, err) }
	b.set(now, somePins(1), false)
	check("nobody, where a former life may have left somebody", 0, "web")
	b.wrote(now, "web", b["web"].version, 0, nil)
	check("nobody", pinPause, "")
	b.set(now, somePins(1, "10.1.0.2"), false)
	check("one", 0, "web")
	wrote(nil)
	check("written", 0, "")
	b.set(now, somePins(1, "10.1.0.2", "10.1.0.4"), false)
	check("another, too soon", pinPause-1, "")
	check("another", 1, "web")
	wrote(nil)
	b.set(now, somePins(2, "10.1.0.2"), true)
	check("in a hurry", 0, "web")
	wrote(nil)
	b.set(now, somePins(1), false)
	check("looked by an older allocation", pinPause, "")
	check("to be renewed", pins.Renew, "web")
	wrote(errors.New("away"))
	check("it failed", 0, "")
	check("it failed", retryAfter, "web")
	wrote(nil)
	b.set(now, somePins(2), false)
	check("all are over", pinPause, "web")
	b.wrote(now, "web", b["web"].version, 0, nil)
	check("gone", time.Hour, "")
	b.set(now, somePins(2, "10.1.0.2"), false)
	wrote(nil)
	check("nobody looks any more", pinStale, "web")
	if !b["web"].nobody(now) {
		t.Error("pins whom nobody has looked at")
	}
}

// A server is prepared when the routers of all directors that answer hold its pins, and at last when it has waited for long enough.
func TestPreparedWhenRoutersHoldPins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, answers := store.NewMemory(time.Minute), pins.NewFake()
		p := newPinner(bucket, answers, "s2", slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { p.run(ctx, func(context.Context) bool { return false }); close(ended) }()
		synctest.Wait()
		ahead := func(of pins.Pins) (took func() time.Duration) {
			began, end := time.Now(), time.Duration(-1)
			go func() {
				limited, cancel := context.WithTimeout(ctx, pinWait)
				defer cancel()
				p.ahead(limited, of)
				end = time.Since(began)
			}()
			synctest.Wait()
			return func() time.Duration { synctest.Wait(); return end }
		}
		answer := func(director string, held bool) {
			e, err := bucket.Get(ctx, "web.s2")
			if err != nil {
				t.Fatal(err)
			}
			_ = answers.Say(pins.Answer{Director: director, Service: "web", Server: "s2", Revision: e.Revision, Held: held})
		}
		took := ahead(somePins(2, "10.1.0.2"))
		answer("d1", false)
		answer("d2", false)
		time.Sleep(10 * time.Millisecond)
		answer("d1", true)
		if got := took(); got >= 0 {
			t.Errorf("prepared after %v, before the routers of d2 hold it", got)
		}
		time.Sleep(10 * time.Millisecond)
		answer("d2", true)
		if got := took(); got != 20*time.Millisecond {
			t.Errorf("prepared after %v, want 20 ms", got)
		}
		took = ahead(somePins(3, "10.1.0.2", "10.1.0.4"))
		answer("d1", true)
		time.Sleep(pinWait)
		if got := took(); got != pinWait {
			t.Errorf("without d2: prepared after %v, want %v", got, pinWait)
		}
		if got := ahead(somePins(4))(); got != 0 {
			t.Errorf("of nobody: prepared after %v", got)
		}
		p.set(somePins(5, "10.1.0.2"))
		time.Sleep(time.Second)
		if _, err := bucket.Get(ctx, "web.s2"); err != nil {
			t.Error(err)
		}
		cancel()
		<-ended
		if _, err := bucket.Get(t.Context(), "web.s2"); err == nil {
			t.Error("leaves its pins behind")
		}
	})
}
