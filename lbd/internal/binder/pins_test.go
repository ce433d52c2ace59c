package binder

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/pins"
	"github.com/manycast/manycast/lbd/internal/store"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

const (
	pinning   = "name: web\nvip: 192.0.2.80\nmode: tags\nports: [tcp/80]\nhandover: [pin, forward]\nsplit: [10.1.9.0/24]\n"
	multicast = "name: web\nvip: 192.0.2.80\ngroup: 239.1.1.1\nports: [tcp/80]\nhandover: [pin, forward]\n"
)

// owned gives even users to one server and odd users to another, of s1, s2 and s3 without those who own nothing.
func owned(number uint64, even, odd string) alloc.Allocation {
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: number}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 1}, Standby: []uint16{alloc.None, alloc.None},
	}
	a.Servers = slices.Compact(slices.Sorted(slices.Values([]string{even, odd})))
	for _, name := range a.Servers {
		a.Addresses = append(a.Addresses, netip.MustParseAddr("10.3.0.1"+name[1:]))
	}
	for _, name := range []string{even, odd} {
		a.Owner = append(a.Owner, uint16(slices.Index(a.Servers, name)))
	}
	return a
}

// followed are allocations with the trails that a leader gives them.
func followed(all ...alloc.Allocation) []alloc.Allocation {
	for i := 1; i < len(all); i++ {
		all[i].Trail = alloc.Follow(all[i-1], all[i], alloc.Holders{"s1": {}, "s2": {}, "s3": {}}, nil)
	}
	return all
}

func pinsOf(server string, number uint64, users ...string) pins.Pins {
	p := pins.Pins{Service: "web", Server: server, Epoch: epoch.Epoch{Term: 1, Number: number}}
	for _, u := range users {
		p.Users = append(p.Users, netip.MustParseAddr(u))
	}
	return p
}

// excepted are a word's exceptions: user to server, and a server's address where the allocation does not name it.
func excepted(b *tdpdv1.UserBinding) string {
	var out []string
	servers := slices.Clone(b.GetAllocation().GetServers())
	for _, o := range b.GetOthers() {
		a, _ := netip.AddrFromSlice(o.GetAddress())
		servers = append(servers, o.GetName()+" at "+a.String())
	}
	for i, u := range b.GetUserAddresses() {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], u)
		out = append(out, netip.AddrFrom4(a).String()+" to "+servers[b.GetUserServers()[i]])
	}
	text := strings.Join(out, ", ")
	if b.GetUsersOnly() {
		text = "only " + text
	}
	return text
}

// A server pins users that it had, or is about to lose, and nobody else's.
func TestWhomAServerMayPin(t *testing.T) {
	all := followed(owned(1, "s1", "s1"), owned(2, "s2", "s1"), owned(3, "s3", "s1"))
	for name, c := range map[string]struct {
		service         string
		committed, next int // of all; 0: none
		pins            []pins.Pins
		want            string
	}{
		"what it lost":                  {pinning, 2, 0, []pins.Pins{pinsOf("s1", 2, "10.1.0.2", "10.1.0.4")}, "10.1.0.2 to s1, 10.1.0.4 to s1"},
		"what it is to lose is its own": {pinning, 1, 2, []pins.Pins{pinsOf("s1", 2, "10.1.0.2")}, ""},
		"others', whom it never had":    {pinning, 2, 0, []pins.Pins{pinsOf("s3", 2, "10.1.0.2"), pinsOf("s2", 2, "10.1.0.3")}, ""},
		"the latest that had it":        {pinning, 3, 0, []pins.Pins{pinsOf("s1", 3, "10.1.0.2", "10.1.0.4"), pinsOf("s2", 3, "10.1.0.2")}, "10.1.0.2 to s2 at 10.3.0.12, 10.1.0.4 to s1"},
		"split users":                   {pinning, 2, 0, []pins.Pins{pinsOf("s1", 2, "10.1.9.2")}, ""},
		"handover forward":              {strings.Replace(pinning, "[pin, forward]", "forward", 1), 2, 0, []pins.Pins{pinsOf("s1", 2, "10.1.0.2")}, ""},
		"multicast":                     {multicast, 2, 0, []pins.Pins{pinsOf("s1", 2, "10.1.0.2")}, "only 10.1.0.2 to s1"},
		"multicast, about to lose":      {multicast, 1, 2, []pins.Pins{pinsOf("s1", 2, "10.1.0.2", "10.1.0.3")}, "only 10.1.0.2 to s1"},
		"multicast, to nobody's loss":   {multicast, 1, 0, []pins.Pins{pinsOf("s1", 1, "10.1.0.2")}, "nothing"},
	} {
		s := parse(t, c.service)[0]
		w := newWords(Config{})
		a := allocated{Allocation: all[c.committed-1]}
		if c.next > 0 {
			a.next = all[c.next-1]
		}
		for _, p := range c.pins {
			w.setPins(time.Now(), p, 1)
		}
		got := "nothing"
		if word := w.word(s, a); word != nil {
			got = excepted(word)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// pinRouters note the exceptions they are told, and may be slow.
type pinRouters struct {
	mu    sync.Mutex
	slow  time.Duration
	heard []string
}

func (r *pinRouters) Only(context.Context, string, []string) error { return nil }

func (r *pinRouters) Bind(_ context.Context, router string, b *tdpdv1.UserBinding) error {
	time.Sleep(r.slow)
	r.mu.Lock()
	defer r.mu.Unlock()
	text := excepted(b)
	if withdraws(b) {
		text = "withdrawn"
	}
	r.heard = append(r.heard, router+": "+text)
	return nil
}

func (r *pinRouters) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.heard = nil }()
	slices.Sort(r.heard)
	return strings.Join(r.heard, "; ")
}

// pinRig is a binder of two routers, with a service that pins.
type pinRig struct {
	*testing.T
	routers     pinRouters
	allocations *store.Memory
	pins        *store.Memory
	mu          sync.Mutex
	answers     []string
}

func newPinRig(t *testing.T, text string) *pinRig {
	r := &pinRig{T: t, allocations: store.NewMemory(0), pins: store.NewMemory(time.Minute)}
	services, answers := make(chan []service.Service, 1), pins.NewFake()
	services <- parse(t, text)
	if _, err := answers.Listen(func(a pins.Answer) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.answers = append(r.answers, fmt.Sprintf("%s %s %s %d %v", a.Director, a.Service, a.Server, a.Revision, a.Held))
	}); err != nil {
		t.Fatal(err)
	}
	b := New(Config{
		Name: "d1", Routers: []string{"r1", "r2"}, Lifetime: time.Hour, Hold: time.Minute, Services: services, Allocations: r.allocations,
		Pins: r.pins, Answers: answers, Router: &r.routers, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return r
}

func (r *pinRig) allocate(s store.State) {
	r.Helper()
	data, err := store.EncodeState("web", s)
	if err == nil {
		_, err = r.allocations.Put(r.Context(), "web", data)
	}
	if err != nil {
		r.Fatal(err)
	}
}

func (r *pinRig) pin(p pins.Pins) {
	r.Helper()
	data, err := pins.Encode(p)
	if err == nil {
		_, err = r.pins.Put(r.Context(), pins.Key(p.Service, p.Server), data)
	}
	if err != nil {
		r.Fatal(err)
	}
}

func (r *pinRig) want(when string, wait time.Duration, routers string, answers ...string) {
	r.Helper()
	time.Sleep(wait)
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := r.routers.take(); got != routers {
		r.Errorf("%s: routers heard %q, want %q", when, got, routers)
	}
	if !slices.Equal(r.answers, answers) {
		r.Errorf("%s: answers %q, want %q", when, r.answers, answers)
	}
	r.answers = nil
}

// settle wants both routers to hear of the allocation, and of nobody who is pinned, perhaps of the service before it: which comes first is open.
func (r *pinRig) settle() {
	r.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	heard := strings.Split(r.routers.take(), "; ")
	slices.Sort(heard)
	if heard = slices.Compact(heard); !slices.Equal(heard, []string{"r1: ", "r2: "}) || r.answers != nil {
		r.Errorf("at first routers heard %q, servers %q", heard, r.answers)
	}
}

// Of mode multicast routers hear of pinned users alone, before they move, and of nobody when their connections are over, or the server is.
func TestPinsAreToldAndAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newPinRig(t, multicast)
		all := followed(owned(1, "s1", "s1"), owned(2, "s2", "s1"))
		r.allocate(store.State{Committed: all[0]})
		r.want("nobody is pinned", time.Second, "")
		r.routers.slow = 50 * time.Millisecond
		r.pin(pinsOf("s1", 2, "10.1.0.2"))
		r.want("nothing is known of that epoch", time.Second, "", "d1 web s1 1 false")
		r.allocate(store.State{Committed: all[0], Prepared: all[1]})
		r.want("prepared", 40*time.Millisecond, "")
		r.want("routers have it", 20*time.Millisecond, "r1: only 10.1.0.2 to s1; r2: only 10.1.0.2 to s1", "d1 web s1 1 true")
		r.allocate(store.State{Committed: all[1]})
		r.want("committed", time.Second, "r1: only 10.1.0.2 to s1; r2: only 10.1.0.2 to s1")
		r.pin(pinsOf("s1", 2, "10.1.0.2"))
		r.want("renewed", time.Second, "", "d1 web s1 2 false", "d1 web s1 2 true")
		r.pin(pinsOf("s1", 2))
		r.want("its connection is over", time.Second, "r1: withdrawn; r2: withdrawn", "d1 web s1 3 false", "d1 web s1 3 true")
		r.pin(pinsOf("s1", 2, "10.1.0.4"))
		r.want("another one", time.Second, "r1: only 10.1.0.4 to s1; r2: only 10.1.0.4 to s1", "d1 web s1 4 false", "d1 web s1 4 true")
		r.want("the server says nothing any more", pins.Expires, "r1: withdrawn; r2: withdrawn")
	})
}

// Servers that lose users in one moment make one word; later ones wait for a while.
func TestPinsOfManyServersAreOneWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newPinRig(t, pinning)
		all := followed(owned(1, "s1", "s2"), owned(2, "s3", "s3"))
		r.allocate(store.State{Committed: all[1]})
		r.settle()
		r.pin(pinsOf("s1", 2, "10.1.0.2"))
		time.Sleep(pinsWait / 2)
		r.pin(pinsOf("s2", 2, "10.1.0.3"))
		r.want("both", pinsWait, "r1: 10.1.0.2 to s1 at 10.3.0.11, 10.1.0.3 to s2 at 10.3.0.12; r2: 10.1.0.2 to s1 at 10.3.0.11, 10.1.0.3 to s2 at 10.3.0.12",
			"d1 web s1 1 false", "d1 web s2 2 false", "d1 web s1 1 true", "d1 web s2 2 true")
		r.pin(pinsOf("s1", 2))
		r.want("too soon", pinsPause/2, "", "d1 web s1 3 false")
		if err := r.pins.Delete(t.Context(), "web.s2"); err != nil {
			t.Fatal(err)
		}
		r.want("all are over", pinsPause, "r1: ; r2: ", "d1 web s1 3 true")
	})
}

// A service that moves from mode tags goes on until what takes its users has begun, and then with those who are pinned.
func TestPinsAfterAnotherMode(t *testing.T) {
	now := time.Now()
	whole, some := &tdpdv1.UserBinding{Service: "web", Nobody: alloc.EpochToProto(epoch.Epoch{Number: 1})}, &tdpdv1.UserBinding{Service: "web", Allocation: alloc.ToProto("web", owned(1, "s1", "s1")), UsersOnly: true}
	tl := newTeller(time.Minute)
	tl.told(now, "web", whole, nil)
	want := wanted{words: map[string]*tdpdv1.UserBinding{"web": some}, moved: map[string]bool{"web": true}, known: true}
	if _, word := tl.due(now, want); word != nil {
		t.Errorf("says %v before anybody else takes its users", word)
	}
	if at := tl.next(now, want); at != now.Add(leaveAfter) {
		t.Errorf("goes on at %v", at)
	}
	now = now.Add(leaveAfter)
	if _, word := tl.due(now, want); word != some {
		t.Errorf("says %v, want those who are pinned", word)
	}
	tl.told(now, "web", some, nil)
	want.words = nil
	if _, word := tl.due(now, want); word == nil || !withdraws(word) {
		t.Errorf("says %v, want nobody to be pinned", word)
	}
}

func TestPinsAreCounted(t *testing.T) {
	w := newWords(Config{})
	all := followed(owned(1, "s1", "s1"), owned(2, "s2", "s1"))
	s := parse(t, pinning)[0]
	w.setPins(time.Now(), pinsOf("s1", 2, "10.1.0.2", "10.1.0.4", "10.1.0.3"), 1)
	w.setPins(time.Now(), pinsOf("s3", 2, "10.1.0.2"), 2)
	w.word(s, allocated{Allocation: all[1]})
	if got := w.counted["web"]; got != (pinCount{2, 2}) {
		t.Errorf("counted %+v, want two told, and two refused", got)
	}
	w.dropPins("web", "s1")
	w.dropPins("web", "s3")
	w.word(s, allocated{Allocation: all[1]})
	if got := w.counted["web"]; got != (pinCount{}) {
		t.Errorf("nobody is pinned: counted %+v", got)
	}
}
