package movement_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

func open(t testing.TB, f *movement.Follower, c movement.Connection) {
	t.Helper()
	if actions, err := f.Opened(start, c, netip.AddrPort{}); err != nil || len(actions) != 0 {
		t.Fatalf("opened: %v, %v", actions, err)
	}
}

// newFollower follows one connection of a service whose keys are known.
func newFollower(t testing.TB, limits movement.FollowerLimits) *movement.Follower {
	t.Helper()
	f := movement.NewFollower(limits)
	f.Set(service, published())
	open(t, f, connection())
	return f
}

// verdict is what was made of a message: Rewrite's destination, or Refuse's reason.
func verdict(actions []movement.Action) (netip.AddrPort, movement.Reason) {
	for _, a := range actions {
		switch a := a.(type) {
		case movement.Rewrite:
			return a.Destination, 0
		case movement.Refuse:
			return netip.AddrPort{}, a.Reason
		}
	}
	return netip.AddrPort{}, 0
}

func asks(actions []movement.Action) int {
	n := 0
	for _, a := range actions {
		if _, is := a.(movement.Ask); is {
			n++
		}
	}
	return n
}

func TestFollowerFollows(t *testing.T) {
	f := newFollower(t, movement.FollowerLimits{})
	actions := f.Received(ms(1), sign(t, change(1, s1, s2), 1))
	if len(actions) != 1 || actions[0] != (movement.Rewrite{Flow: flow, Destination: s2, Sequence: 1}) {
		t.Fatalf("%v", actions)
	}
	if to, why := verdict(f.Received(ms(2), sign(t, change(2, s2, s1), 1))); to != s1 {
		t.Errorf("back: %v, %v", to, why)
	}
	if to, why := verdict(f.Received(ms(3), sign(t, change(7, s3, s2), 1))); to != s2 {
		t.Errorf("after moves that were lost: %v, %v", to, why)
	}
	want := connection()
	want.Destination, want.Sequence, want.Moves = s2, 7, 3
	if got := f.Connections(); !slices.Equal(got, []movement.Connection{want}) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestFollowerRefuses(t *testing.T) {
	foreign := movement.Service{Keys: []record.Key{public(2)}, Destinations: published().Destinations}
	for _, c := range []struct {
		what   string
		change func(*wire.Change)
		seed   byte // of the key that signs
		raw    func([]byte) []byte
		want   movement.Reason
	}{
		{what: "cut short", raw: func(b []byte) []byte { return b[:100] }, want: movement.Malformed},
		{what: "another version", raw: func(b []byte) []byte { b[wire.ChangeOffVersion]++; return b }, want: movement.Malformed},
		{what: "no connection", change: func(c *wire.Change) { c.Cookie, c.User = wire.Cookie{9}, at("10.1.0.8:1") }, want: movement.UnknownConnection},
		{what: "cookie of another host's", change: func(c *wire.Change) { c.User = at("10.1.0.7:40002") }, want: movement.UnknownConnection},
		{what: "cookie", change: func(c *wire.Change) { c.Cookie[7]++ }, want: movement.WrongCookie},
		{what: "tag", change: func(c *wire.Change) { c.Tag++ }, want: movement.WrongTag},
		{what: "another VIP", change: func(c *wire.Change) { c.VIP = at("192.0.2.81:80") }, want: movement.OtherService},
		{what: "another port of the VIP", change: func(c *wire.Change) { c.VIP = at("192.0.2.80:81") }, want: movement.OtherService},
		{what: "the move that is known", change: func(c *wire.Change) { c.Sequence = 3 }, want: movement.Stale},
		{what: "a move before", change: func(c *wire.Change) { c.Sequence = 2 }, want: movement.Stale},
		{what: "long ago", change: func(c *wire.Change) { c.Time = start.Add(-10*time.Minute - time.Millisecond) }, want: movement.Expired},
		{what: "far ahead", change: func(c *wire.Change) { c.Time = start.Add(10*time.Minute + time.Millisecond) }, want: movement.Future},
		{what: "a sequence far ahead", change: func(c *wire.Change) { c.Sequence = uint64(start.UnixMilli()) + 600_001 }, want: movement.Future},
		{what: "the highest sequence", change: func(c *wire.Change) { c.Sequence = 1<<64 - 1 }, want: movement.Future},
		{what: "outside of the set", change: func(c *wire.Change) { c.New = at("203.0.113.1:8080") }, want: movement.OutsideSet},
		{what: "another service's key", change: func(c *wire.Change) { c.KeyID = public(2).ID }, seed: 2, want: movement.UnknownKey},
		{what: "another service's key by our key's name", seed: 2, want: movement.BadSignature},
		{what: "a flipped bit", raw: func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, want: movement.BadSignature},
	} {
		f := newFollower(t, movement.FollowerLimits{})
		f.Set("other", foreign)
		if to, why := verdict(f.Received(start, sign(t, change(3, s1, s2), 1))); to != s2 {
			t.Fatal(why)
		}
		before := f.Connections()
		ch, seed := change(4, s2, s3), c.seed
		if c.change != nil {
			c.change(&ch)
		}
		if seed == 0 {
			seed = 1
		}
		raw := sign(t, ch, seed)
		if c.raw != nil {
			raw = c.raw(raw)
		}
		to, why := verdict(f.Received(start, raw))
		if why != c.want || f.Counters().Refused[c.want] != 1 {
			t.Errorf("%s: to %v, refused as %v, want %v; %v", c.what, to, why, c.want, f.Counters().Refused)
		}
		if !slices.Equal(f.Connections(), before) {
			t.Errorf("%s: changed %+v", c.what, f.Connections())
		}
		if checked := f.Counters().Checked - 1; (checked != 0) != (c.want == movement.BadSignature) {
			t.Errorf("%s: %d signatures were checked", c.what, checked)
		}
	}
}

// Who has a key that has leaked can take the last word for as long as a clock may be wrong, not for good.
func TestFollowerHearsTheServiceAfterAKeyThatHasLeaked(t *testing.T) {
	f := newFollower(t, movement.FollowerLimits{})
	served := movement.NextSequence(0, start)
	if to, why := verdict(f.Received(start, sign(t, change(served, s1, s2), 1))); to != s2 {
		t.Fatal(why)
	}
	highest := movement.NextSequence(0, start.Add(10*time.Minute))
	if to, why := verdict(f.Received(start, sign(t, change(highest, s2, s1), 1))); to != s1 {
		t.Fatal(why)
	}
	rolled := published()
	rolled.Keys = []record.Key{public(2)}
	f.Set(service, rolled)
	for _, tt := range []struct {
		after time.Duration
		want  movement.Reason
	}{{time.Minute, movement.Stale}, {10 * time.Minute, movement.Stale}, {10*time.Minute + time.Millisecond, 0}} {
		now := start.Add(tt.after)
		c := change(movement.NextSequence(served, now), s2, s3)
		c.Time, c.KeyID = now, public(2).ID
		if to, why := verdict(f.Received(now, sign(t, c, 2))); why != tt.want || (to == s3) != (tt.want == 0) {
			t.Errorf("%v after: to %v, %v", tt.after, to, why)
		}
	}
}

func TestNextSequence(t *testing.T) {
	now := uint64(start.UnixMilli())
	for last, want := range map[uint64]uint64{
		0: now, 7: now, now - 1: now, now: now + 1, now + 600_000: now + 600_001, now + 600_001: now, 1<<64 - 1: now,
	} {
		if got := movement.NextSequence(last, start); got != want {
			t.Errorf("after %d: %d, want %d", last, got, want)
		}
	}
	if got := movement.NextSequence(0, time.Unix(-1, 0)); got != 1 {
		t.Errorf("before 1970: %d", got)
	}
}

// Another port of a published address is published.
func TestFollowerTakesAnyPortOfTheSet(t *testing.T) {
	f := newFollower(t, movement.FollowerLimits{})
	other := netip.AddrPortFrom(s2.Addr(), 22)
	if to, why := verdict(f.Received(start, sign(t, change(1, s1, other), 1))); to != other {
		t.Errorf("to %v, %v", to, why)
	}
}

func TestFollowerTakesClocksThatAreWrong(t *testing.T) {
	for _, off := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		f := newFollower(t, movement.FollowerLimits{})
		if to, why := verdict(f.Received(start.Add(off), sign(t, change(1, s1, s2), 1))); to != s2 {
			t.Errorf("%v off: %v", off, why)
		}
	}
}

// A key that has left the DNS is of no use when what is known is over, and is asked for no more than once in a while.
func TestFollowerUsesNoKeyBeyondItsTime(t *testing.T) {
	f := newFollower(t, movement.FollowerLimits{})
	s := published()
	s.Until = ms(1000)
	f.Set(service, s)
	if to, why := verdict(f.Received(ms(999), sign(t, change(1, s1, s2), 1))); to != s2 {
		t.Errorf("in time: %v", why)
	}
	n := 0
	for i := range 100 {
		actions := f.Received(ms(1000+i), sign(t, change(2, s2, s1), 1))
		if _, why := verdict(actions); why != movement.UnknownKey {
			t.Fatalf("beyond its time: %v", actions)
		}
		n += asks(actions)
	}
	if n != 1 {
		t.Errorf("asked for %d times in 100 ms", n)
	}
	s.Keys, s.Until = []record.Key{public(2)}, ms(5000)
	f.Set(service, s)
	actions := f.Received(ms(2000), sign(t, change(2, s2, s1), 1))
	if _, why := verdict(actions); why != movement.UnknownKey || asks(actions) != 1 {
		t.Errorf("of a key that is gone: %v", actions)
	}
	c := change(2, s2, s1)
	c.KeyID = public(2).ID
	if to, why := verdict(f.Received(ms(2001), sign(t, c, 2))); to != s1 {
		t.Errorf("of the new key: %v", why)
	}
}

func TestFollowerOfAServiceThatIsNotKnown(t *testing.T) {
	f := movement.NewFollower(movement.FollowerLimits{})
	open(t, f, connection())
	actions := f.Received(start, sign(t, change(1, s1, s2), 1))
	if _, why := verdict(actions); why != movement.UnknownKey || asks(actions) != 1 {
		t.Errorf("%v", actions)
	}
	f.Set(service, published())
	if to, why := verdict(f.Received(ms(20), sign(t, change(1, s1, s2), 1))); to != s2 {
		t.Errorf("when it is known: %v", why)
	}
}

func TestFollowerOfWhatTheSYNACKNames(t *testing.T) {
	atVIP := connection()
	atVIP.Destination = flow.VIP
	for _, c := range []struct {
		what     string
		answered netip.AddrPort
		unknown  bool
		to       netip.AddrPort
		why      movement.Reason
	}{
		{"a server", s2, false, s2, 0},
		{"none", netip.AddrPort{}, false, netip.AddrPort{}, 0},
		{"where it goes already", flow.VIP, false, netip.AddrPort{}, 0},
		{"outside of the set", at("203.0.113.1:8080"), false, netip.AddrPort{}, movement.OutsideSet},
		{"nothing is known", s2, true, netip.AddrPort{}, movement.UnknownKey},
	} {
		f := movement.NewFollower(movement.FollowerLimits{})
		if !c.unknown {
			f.Set(service, published())
		}
		actions, err := f.Opened(start, atVIP, c.answered)
		to, why := verdict(actions)
		if err != nil || to != c.to || why != c.why {
			t.Errorf("%s: %v, %v", c.what, actions, err)
		}
		want := atVIP.Destination
		if c.to.IsValid() {
			want = c.to
		}
		if got := f.Connections(); len(got) != 1 || got[0].Destination != want {
			t.Errorf("%s: %+v", c.what, got)
		}
	}
}

func TestFollowerIsBounded(t *testing.T) {
	f := movement.NewFollower(movement.FollowerLimits{Connections: 2})
	open(t, f, connection())
	twin := connection()
	twin.Flow.User = at("10.1.0.7:40002")
	if _, err := f.Opened(start, twin, netip.AddrPort{}); !errors.Is(err, movement.ErrConnection) {
		t.Errorf("two with one cookie: %v", err)
	}
	twin.Cookie[0]++
	open(t, f, twin)
	third := connection()
	third.Flow.User, third.Cookie = at("10.1.0.7:40003"), wire.Cookie{3}
	if _, err := f.Opened(start, third, netip.AddrPort{}); !errors.Is(err, movement.ErrConnection) {
		t.Errorf("one too many: %v", err)
	}
	again := connection() // the same ports once more: the end of the first was missed
	again.Cookie = wire.Cookie{4}
	open(t, f, again)
	if _, why := verdict(f.Received(start, sign(t, change(1, s1, s2), 1))); why != movement.WrongCookie {
		t.Errorf("cookie of the connection before: %v", why)
	}
	f.Closed(twin.Flow)
	f.Closed(twin.Flow)
	open(t, f, third)
	if n := len(f.Connections()); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// Floods with the right cookie, by who is on the path, cost a bounded number of signatures, and other connections' moves are followed.
func TestFollowerOfAFlood(t *testing.T) {
	f := newFollower(t, movement.FollowerLimits{Each: 10, All: 100})
	quiet := connection()
	quiet.Flow.User, quiet.Cookie = at("10.1.0.7:40002"), wire.Cookie{3}
	open(t, f, quiet)
	forged := sign(t, change(5, s1, s3), 1)
	forged[len(forged)-1] ^= 1
	for i := range 20000 { // in 2 s
		f.Received(start.Add(time.Duration(i)*100*time.Microsecond), forged)
	}
	c := f.Counters()
	if c.Checked < 25 || c.Checked > 30 || c.Refused[movement.TooMany] != 20000-c.Checked || c.Followed != 0 {
		t.Errorf("%+v", c)
	}
	move := change(1, s1, s2)
	move.User, move.Cookie = quiet.Flow.User, quiet.Cookie
	if to, why := verdict(f.Received(ms(2000), sign(t, move, 1))); to != s2 {
		t.Errorf("another connection's move: %v", why)
	}
	if to, why := verdict(f.Received(ms(2200), sign(t, change(1, s1, s2), 1))); to != s2 {
		t.Errorf("its own, when the flood is over: %v", why)
	}
	for i := range 200 { // floods of many connections take what all may take, no more
		n := connection()
		n.Flow.User, n.Cookie = netip.AddrPortFrom(flow.User.Addr(), uint16(1+i)), wire.Cookie{0xf0, byte(i)}
		open(t, f, n)
		bogus := change(1, s1, s2)
		bogus.User, bogus.Cookie = n.Flow.User, n.Cookie
		for range 20 {
			f.Received(ms(5000), sign(t, bogus, 9))
		}
	}
	if more := f.Counters().Checked - c.Checked; more > 110 {
		t.Errorf("%d signatures at once, of 100", more)
	}
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range movement.Reasons() {
		if name := r.String(); name == "unknown" || name == "" || seen[name] {
			t.Errorf("reason %d is %q", r, name)
		} else {
			seen[name] = true
		}
	}
	if len(seen) != 12 || movement.Reason(0).String() != "unknown" {
		t.Errorf("%d reasons", len(seen))
	}
}

func FuzzReceived(f *testing.F) {
	f.Add(sign(f, change(2, s1, s2), 1))
	f.Add(sign(f, change(2, s1, s2), 2))
	f.Fuzz(func(t *testing.T, raw []byte) {
		follower := newFollower(t, movement.FollowerLimits{})
		before := follower.Connections()
		to, why := verdict(follower.Received(start, raw))
		s, err := wire.Decode(raw)
		good := err == nil && s.Verify(public(1).Public)
		if to.IsValid() && !good || !good && !slices.Equal(follower.Connections(), before) || to.IsValid() == (why != 0) {
			t.Errorf("%x: to %v, %v", raw, to, why)
		}
	})
}
