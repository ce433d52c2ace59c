package steering

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/steer"
)

var (
	self, d1, d2, core = router(1), router(11), router(12), router(2)
	start              = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func router(n byte) Router { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }

// allocation gives slots in turn to the servers, each the next one's standby.
func allocation(number uint64, servers ...string) alloc.Allocation {
	a := alloc.Allocation{Epoch: epoch.Epoch{Term: 1, Number: number}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 4}, Servers: servers}
	for i := range servers {
		a.Addresses = append(a.Addresses, netip.AddrFrom4([4]byte{10, 3, byte(i), 10}))
	}
	for slot := range a.Slots.Count() {
		a.Owner = append(a.Owner, uint16(slot%len(servers)))
		a.Standby = append(a.Standby, uint16((slot+1)%len(servers)))
	}
	return a
}

func binding(voucher Router, sequence, number uint64, path ...Router) Binding {
	return Binding{
		Service: "web", VIPs: []netip.Addr{netip.MustParseAddr("192.0.2.80")}, Voucher: voucher, Sequence: sequence,
		Allocation: allocation(number, "s1", "s2", "s3"), Lifetime: 30 * time.Second, Hold: time.Minute, Path: append([]Router{voucher}, path...),
	}
}

func book() *Book {
	return New(self, Trust{{From: d1}, {From: d2}, {From: core, VIPs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}, Limits{})
}

// told is what the actions are, in words.
func told(actions []Action) string {
	var out []string
	for _, a := range actions {
		switch a := a.(type) {
		case Steer:
			if a.Withdraws() {
				out = append(out, "stop")
			} else {
				out = append(out, "steer "+a.Allocation.Epoch.String()+" of "+a.Voucher.String())
			}
		case Tell:
			text := "tell " + a.Allocation.Epoch.String()
			if a.Withdraws() {
				text = "withdraw"
			}
			if a.Again {
				text += " again"
			}
			out = append(out, text)
		}
	}
	return strings.Join(out, ", ")
}

type rig struct {
	*testing.T
	*Book
	now time.Time
}

func newRig(t *testing.T) *rig { return &rig{t, book(), start} }

func (r *rig) put(from Router, n Binding, want string) {
	r.Helper()
	actions, err := r.Put(r.now, from, n)
	if got := told(actions); err != nil || got != want {
		r.Errorf("%v tells %v: %q, %v, want %q", from, n.Allocation.Epoch, got, err, want)
	}
}

func (r *rig) refused(from Router, n Binding, want error) {
	r.Helper()
	if actions, err := r.Put(r.now, from, n); !errors.Is(err, want) || actions != nil {
		r.Errorf("%v tells %v: %q, %v, want %v", from, n.Allocation.Epoch, told(actions), err, want)
	}
}

// pass lets time pass, tick by tick.
func (r *rig) pass(d time.Duration, want string) {
	r.Helper()
	var all []Action
	for end := r.now.Add(d); ; {
		next := r.Next()
		if next.IsZero() || next.After(end) {
			r.now = end
			break
		}
		r.now = next
		all = append(all, r.Tick(next)...)
	}
	if got := told(all); got != want {
		r.Errorf("%v pass: %q, want %q", d, got, want)
	}
}

func (r *rig) lost(from Router, want string) {
	r.Helper()
	if got := told(r.Lost(r.now, from)); got != want {
		r.Errorf("%v is lost: %q, want %q", from, got, want)
	}
}

func TestABindingHolds(t *testing.T) {
	r := newRig(t)
	r.put(d1, binding(d1, 1, 1), "steer 1.1 of 10.0.0.11, tell 1.1")
	r.put(d1, binding(d1, 2, 2), "steer 1.2 of 10.0.0.11, tell 1.2")
	r.pass(29*time.Second, "")
	r.put(d1, binding(d1, 2, 2), "tell 1.2 again")
	r.pass(29*time.Second, "")
	gone := Binding{Service: "web", Voucher: d1, Sequence: 3, Path: []Router{d1}}
	r.put(d1, gone, "stop, withdraw")
	if !r.Next().IsZero() || len(r.Held(r.now)) > 0 {
		t.Error("something is left")
	}
}

func TestWhatNobodyRefreshesIsHeldAndGoes(t *testing.T) {
	r := newRig(t)
	r.put(d1, binding(d1, 1, 1), "steer 1.1 of 10.0.0.11, tell 1.1")
	r.pass(89*time.Second, "")
	r.pass(2*time.Second, "stop")
}

// A director that restarts within the hold time loses nothing; one that does not loses its binding, unless another vouches.
func TestAVoucherIsLost(t *testing.T) {
	r := newRig(t)
	r.put(d1, binding(d1, 1, 1), "steer 1.1 of 10.0.0.11, tell 1.1")
	r.lost(d1, "")
	r.pass(59*time.Second, "")
	r.put(d1, binding(d1, 2, 1), "tell 1.1")
	r.put(d2, binding(d2, 1, 1), "tell 1.1")
	r.lost(d1, "")
	r.pass(29*time.Second, "")
	r.put(d2, binding(d2, 1, 1), "tell 1.1 again")
	r.pass(61*time.Second, "")
	if n := len(r.Held(r.now)); n != 1 {
		t.Errorf("%d are held, want d2's", n)
	}
	r.lost(d2, "")
	r.pass(28*time.Second, "")
	r.pass(2*time.Second, "stop")
}

func TestTheHighestEpochHolds(t *testing.T) {
	r := newRig(t)
	r.put(d1, binding(d1, 1, 7), "steer 1.7 of 10.0.0.11, tell 1.7")
	r.put(d2, binding(d2, 1, 6), "tell 1.6")
	r.put(d2, binding(d2, 2, 8), "steer 1.8 of 10.0.0.12, tell 1.8")
	r.put(d1, binding(d1, 2, 8), "tell 1.8")
	r.put(d2, Binding{Service: "web", Voucher: d2, Sequence: 3, Path: []Router{d2}}, "withdraw")
}

// One voucher's word may come by several neighbors: it is lost with the last of them, and told on once.
func TestSeveralWays(t *testing.T) {
	r := newRig(t)
	r.put(d1, binding(d1, 1, 1), "steer 1.1 of 10.0.0.11, tell 1.1")
	r.put(core, binding(d1, 1, 1, core), "")
	r.lost(d1, "")
	r.pass(29*time.Second, "")
	r.put(core, binding(d1, 1, 1, core), "tell 1.1 again")
	r.put(core, binding(d1, 1, 1, core), "")
	r.pass(31*time.Second, "")
	if held := r.Held(r.now); len(held) != 1 || held[0].Lifetime != MinLifetime || held[0].Hold >= time.Minute {
		t.Errorf("held %+v", held)
	}
}

func TestRefresh(t *testing.T) {
	r := newRig(t)
	r.put(d1, binding(d1, 1, 1), "steer 1.1 of 10.0.0.11, tell 1.1")
	r.pass(20*time.Second, "")
	again := Binding{Service: "web", Voucher: d1, Sequence: 1, Lifetime: 30 * time.Second, Hold: time.Minute}
	actions, err := r.Refresh(r.now, d1, again)
	if got := told(actions); err != nil || got != "tell 1.1 again" {
		t.Errorf("refreshed: %q, %v", got, err)
	}
	r.pass(80*time.Second, "")
	for name, wrong := range map[string]struct {
		from   Router
		change func(*Binding)
	}{
		"another sequence": {d1, func(b *Binding) { b.Sequence = 2 }},
		"another service":  {d1, func(b *Binding) { b.Service = "dns" }},
		"another voucher":  {d1, func(b *Binding) { b.Voucher = d2 }},
		"another neighbor": {core, func(*Binding) {}},
		"no time":          {d1, func(b *Binding) { b.Lifetime = 0 }},
		"too much time":    {d1, func(b *Binding) { b.Hold = MaxLifetime + 1 }},
	} {
		b := again
		wrong.change(&b)
		if _, err := r.Refresh(r.now, wrong.from, b); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// What is told on holds no longer than it does here, whatever the way.
func TestTimesAreNotAddedUp(t *testing.T) {
	r := newRig(t)
	r.put(d1, binding(d1, 1, 1), "steer 1.1 of 10.0.0.11, tell 1.1")
	r.pass(20*time.Second, "")
	if h := r.Held(r.now)[0]; h.Lifetime != 10*time.Second || h.Hold != time.Minute || !slices.Equal(h.Path, []Router{d1, self}) {
		t.Errorf("after 20 s: %v and %v by %v", h.Lifetime, h.Hold, h.Path)
	}
	r.pass(30*time.Second, "")
	if h := r.Held(r.now)[0]; h.Lifetime+h.Hold != 40*time.Second {
		t.Errorf("after 50 s: %v and %v", h.Lifetime, h.Hold)
	}
}

func TestWhatIsRefused(t *testing.T) {
	with := func(change func(*Binding)) Binding {
		b := binding(d1, 5, 5)
		change(&b)
		return b
	}
	for name, c := range map[string]struct {
		from Router
		b    Binding
		want error
	}{
		"a stranger": {router(99), binding(router(99), 1, 9), ErrNotTrusted},
		"a VIP of somebody else": {core, with(func(b *Binding) {
			b.Path = []Router{d1, core}
			b.VIPs = []netip.Addr{netip.MustParseAddr("198.51.100.1")}
			b.Service = "dns"
		}), ErrNotTrusted},
		"a loop":                     {core, binding(d1, 6, 6, self, core), ErrLoop},
		"a path that ends elsewhere": {d1, binding(d1, 6, 6, core), ErrMalformed},
		"no path":                    {d1, with(func(b *Binding) { b.Path = nil }), ErrMalformed},
		"a long path":                {core, with(func(b *Binding) { b.Path = append([]Router{d1, 8: {}}[:8], core) }), ErrMalformed},
		"older":                      {d1, binding(d1, 4, 9), ErrStale},
		"the same, otherwise":        {d1, binding(d1, 5, 6), ErrStale},
		"a contradiction":            {d2, with(func(b *Binding) { b.Voucher, b.Path = d2, []Router{d2}; b.Allocation = allocation(5, "s1", "s2") }), ErrContradicts},
		"withdraws what is not":      {d2, Binding{Service: "web", Voucher: d2, Sequence: 1, Path: []Router{d2}}, ErrStale},
		"no VIP":                     {d1, with(func(b *Binding) { b.Sequence, b.VIPs = 6, nil }), ErrMalformed},
		"a group":                    {d1, with(func(b *Binding) { b.Sequence, b.VIPs = 6, []netip.Addr{netip.MustParseAddr("239.0.0.1")} }), ErrMalformed},
		"a server without tree":      {d1, with(func(b *Binding) { b.Sequence = 6; b.Allocation.Addresses = nil }), ErrMalformed},
		"no partition":               {d1, with(func(b *Binding) { b.Sequence = 6; b.Allocation.Owner = b.Allocation.Owner[1:] }), ErrMalformed},
		"no lifetime":                {d1, with(func(b *Binding) { b.Sequence, b.Lifetime = 6, 0 }), ErrMalformed},
		"no name":                    {d1, with(func(b *Binding) { b.Service = "" }), ErrMalformed},
		"a user of nobody":           {d1, with(func(b *Binding) { b.Sequence, b.Users = 6, []User{{router(1), "s9"}} }), ErrMalformed},
		"users twice":                {d1, with(func(b *Binding) { b.Sequence, b.Users = 6, []User{{router(1), "s1"}, {router(1), "s2"}} }), ErrMalformed},
		"nobody, of its epoch":       {d2, with(func(b *Binding) { b.Voucher, b.Path, b.Nobody = d2, []Router{d2}, true; b.Allocation = nobody(5) }), ErrContradicts},
		"nobody, but servers":        {d1, with(func(b *Binding) { b.Sequence, b.Nobody = 6, true }), ErrMalformed},
		"nobody, but a user": {d1, with(func(b *Binding) {
			b.Sequence, b.Nobody, b.Users = 6, true, []User{{router(1), "s1"}}
			b.Allocation = nobody(5)
		}), ErrMalformed},
		"a VIP of nobody's":      {d1, with(func(b *Binding) { b.Sequence, b.VIPs = 6, []netip.Addr{netip.MustParseAddr("0.0.0.1")} }), ErrMalformed},
		"this router's address":  {d1, with(func(b *Binding) { b.Sequence, b.VIPs = 6, []netip.Addr{self} }), ErrNotTrusted},
		"split without order":    {d1, with(func(b *Binding) { b.Sequence, b.Split = 6, split("203.0.113.7/32", "198.51.100.0/24") }), ErrMalformed},
		"split with bits behind": {d1, with(func(b *Binding) { b.Sequence, b.Split = 6, split("203.0.113.7/24") }), ErrMalformed},
		"no refusal":             {d1, with(func(b *Binding) { b.Sequence, b.Refuse = 6, Reset+1 }), ErrMalformed},
		"another service's VIP":  {d2, with(func(b *Binding) { b.Service, b.Voucher, b.Path = "dns", d2, []Router{d2} }), ErrTaken},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.put(d1, binding(d1, 5, 5), "steer 1.5 of 10.0.0.11, tell 1.5")
			r.refused(c.from, c.b, c.want)
			if held := r.Held(r.now); len(held) != 1 || !held[0].says(binding(d1, 5, 5)) {
				t.Errorf("what was there is now %+v", held)
			}
		})
	}
}

// nobody is an allocation without servers.
func nobody(number uint64) alloc.Allocation {
	return alloc.Allocation{Epoch: epoch.Epoch{Term: 1, Number: number}}
}

// That nobody serves holds as any binding does, and what users get then may change without an epoch.
func TestNobodyServes(t *testing.T) {
	r := newRig(t)
	none := binding(d1, 1, 1)
	none.Allocation, none.Nobody = nobody(1), true
	r.put(d1, none, "steer 1.1 of 10.0.0.11, tell 1.1")
	none.Sequence, none.Refuse = 2, Reset
	r.put(d1, none, "steer 1.1 of 10.0.0.11, tell 1.1")
	r.put(d1, none, "")
	r.pass(29*time.Second, "")
	r.put(d1, none, "tell 1.1 again")
	r.refused(d1, Binding{Service: "dns", VIPs: none.VIPs, Voucher: d1, Sequence: 1, Allocation: allocation(1, "s1", "s2"), Lifetime: time.Minute, Path: []Router{d1}}, ErrTaken)
	kept := r.Words(r.now)
	r.put(d1, binding(d1, 3, 2), "steer 1.2 of 10.0.0.11, tell 1.2")
	none.Sequence, none.Allocation = 4, nobody(3)
	r.put(d1, none, "steer 1.3 of 10.0.0.11, tell 1.3")
	r.Book = book()
	if got := told(r.Restore(r.now, r.now, kept)); got != "steer 1.1 of 10.0.0.11" {
		t.Errorf("restored: %q", got)
	}
}

func split(prefixes ...string) (s steer.Split) {
	for _, p := range prefixes {
		s = append(s, netip.MustParsePrefix(p))
	}
	return s
}

// What comes of the service changes without an epoch, and two directors' routers hear of it one after the other: the newest word of it holds.
func TestTheNewestWordOfAServiceHolds(t *testing.T) {
	r := newRig(t)
	one, two := binding(d1, 1, 1), binding(d2, 1, 1)
	r.put(d1, one, "steer 1.1 of 10.0.0.11, tell 1.1")
	r.put(d2, two, "tell 1.1")
	two.Sequence, two.Split = 2, split("203.0.113.7/32")
	r.put(d2, two, "steer 1.1 of 10.0.0.12, tell 1.1")
	if got := r.services["web"].used.Split; !slices.Equal(got, two.Split) {
		t.Errorf("split %v", got)
	}
	one.Sequence, one.Split = 3, two.Split
	r.put(d1, one, "tell 1.1")
	two.Sequence, two.Split = 4, nil
	r.put(d2, two, "steer 1.1 of 10.0.0.12, tell 1.1")
	one.Sequence, one.Split, one.Refuse, one.VIPs = 5, nil, Reset, append(slices.Clone(one.VIPs), netip.MustParseAddr("192.0.2.81"))
	r.put(d1, one, "steer 1.1 of 10.0.0.11, tell 1.1")
	if got := r.services["web"].used; got.Refuse != Reset || len(got.VIPs) != 2 {
		t.Errorf("refusal %v, VIPs %v", got.Refuse, got.VIPs)
	}
}

func TestLimits(t *testing.T) {
	b := New(self, Trust{{}}, Limits{Services: 2, Vouchers: 2})
	for n := range byte(3) {
		one := binding(router(20+n), 1, 1)
		if _, err := b.Put(start, router(20+n), one); (n < 2) != (err == nil) || n == 2 && !errors.Is(err, ErrFull) {
			t.Errorf("voucher %d: %v", n, err)
		}
		one.Service, one.VIPs = string('a'+rune(n)), []netip.Addr{router(100 + n)}
		if _, err := b.Put(start, router(20+n), one); (n < 1) != (err == nil) || n > 0 && !errors.Is(err, ErrFull) {
			t.Errorf("service %d: %v", n, err)
		}
	}
}

// A director at this router is always trusted.
func TestOwnDirector(t *testing.T) {
	r := newRig(t)
	r.put(self, binding(self, 1, 1), "steer 1.1 of 10.0.0.1, tell 1.1")
	r.refused(d1, binding(self, 2, 2, d1), ErrLoop)
}

// What a process before has kept holds for as long as it may without its voucher, who goes on where it stopped.
func TestRestore(t *testing.T) {
	r := newRig(t)
	r.put(d1, binding(d1, 3, 4), "steer 1.4 of 10.0.0.11, tell 1.4")
	r.put(d2, binding(d2, 1, 4), "tell 1.4")
	kept := r.Words(r.now)
	wrong := binding(core, 1, 9)
	wrong.Lifetime = 0
	r.Book = book()
	if got := told(r.Restore(r.now, r.now, append(kept, wrong))); got != "steer 1.4 of 10.0.0.11" {
		t.Errorf("restored: %q", got)
	}
	if _, err := r.Refresh(r.now, d1, Binding{Service: "web", Voucher: d1, Sequence: 3, Lifetime: 30 * time.Second}); !errors.Is(err, ErrStale) {
		t.Errorf("who has not told it to this process refreshes it: %v", err)
	}
	r.pass(59*time.Second, "")
	r.put(d1, binding(d1, 3, 4), "tell 1.4 again")
	r.pass(29*time.Second, "")
	r.put(d1, binding(d1, 4, 5), "steer 1.5 of 10.0.0.11, tell 1.5")
	r.pass(91*time.Second, "stop")
	r.Book = book()
	r.Restore(r.now, r.now, kept)
	r.pass(61*time.Second, "stop")

	r.Book = book()
	r.Restore(r.now, r.now.Add(-40*time.Second), kept)
	again := r.Words(r.now) // of a router that restarts again and again
	r.Book = book()
	r.Restore(r.now.Add(10*time.Second), r.now, again)
	r.pass(19*time.Second, "")
	r.pass(2*time.Second, "stop")
	r.Book = book()
	r.put(d1, binding(d1, 3, 4), "steer 1.4 of 10.0.0.11, tell 1.4")
	r.Lost(r.now, d1)
	if r.now = r.now.Add(40 * time.Second); !r.Holds(r.now) {
		t.Error("what nobody vouches for is not held")
	}
	held := r.Words(r.now)
	r.Book = book()
	r.Restore(r.now, r.now, held)
	r.pass(21*time.Second, "stop")

	r.Book = book()
	if got := told(r.Restore(r.now, r.now.Add(-time.Minute), kept)); got != "" {
		t.Errorf("what is over: %q", got)
	}
	if got := told(r.Restore(r.now, r.now.Add(time.Hour), kept)); got != "steer 1.4 of 10.0.0.11" {
		t.Errorf("after a clock was set back: %q", got)
	}
	r.Book = New(self, Trust{{From: d1, VIPs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}}, Limits{})
	if got := told(r.Restore(r.now, r.now, kept)); got != "" {
		t.Errorf("of whom nobody trusts any more: %q", got)
	}
}
