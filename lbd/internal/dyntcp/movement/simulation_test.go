package movement_test

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

var (
	runs = flag.Uint64("runs", 500, "simulations of each kind; a tenth with -short")
	seed = flag.Uint64("seed", 0, "the one simulation to run; 0: all")
)

const (
	simServers     = 4
	simConnections = 3
	simTime        = 8 * time.Second  // of moves and faults
	simAfter       = 40 * time.Second // until all has to be right
)

// faults are in thousandths. Packets take up to the lifetime that announcers count on, replayed ones any time.
type faults struct {
	lose, double, forge, replay, spoof int
	quick                              bool // moves follow each other within milliseconds
	idle                               bool // users say nothing at the end, and the network goes on losing
}

// deceive says that servers hear of users who are not there, or users of moves long ago: what they think is right at the end.
func (f faults) deceive() bool { return f.replay > 0 || f.spoof > 0 }

var kinds = []struct {
	name   string
	faults faults
}{
	{"no faults", faults{}},
	{"loss", faults{lose: 400, double: 200}},
	{"quick moves", faults{lose: 300, double: 200, quick: true}},
	{"forgery", faults{lose: 200, double: 100, forge: 300}},
	{"spoofed segments", faults{lose: 500, spoof: 200}},
	{"replay", faults{lose: 300, replay: 100, quick: true}},
	{"idle users", faults{lose: 300, double: 200, quick: true, idle: true}},
}

// TestSimulation moves connections among servers, before earlier moves are heard of, and back. A user follows no move but a later one, to
// where its number led, whatever is lost, doubled, overtaken, forged or replayed; who is reported as arrived is there, and is where
// the server thinks that it may be; at the end it is at the server that has the connection.
func TestSimulation(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			first, last := uint64(1), *runs
			if testing.Short() {
				last /= 10
			}
			if *seed != 0 {
				first, last = *seed, *seed
			}
			total := map[string]int{}
			for n := first; n <= last && !t.Failed(); n++ {
				newSim(t, n, kind.faults, total).run()
			}
			t.Logf("seeds %d to %d: %v", first, last, total)
			if total["followed"] == 0 || kind.faults.forge > 0 && total["refused bad_signature"] == 0 || kind.faults.replay > 0 && total["refused stale"] == 0 {
				t.Error("nothing was tried")
			}
		})
	}
}

// sim are servers, a user's host, and the network between.
type sim struct {
	t        *testing.T
	seed     uint64
	faults   faults
	total    map[string]int
	random   *rand.Rand
	now      time.Time
	calm     bool // no faults, no moves
	events   events
	number   int
	servers  [simServers]*movement.Announcer
	ticks    [simServers]time.Time // that are in events
	follower *movement.Follower
	conns    [simConnections]*simConnection
	heard    [][]byte // what an attacker on the path has seen
}

type simConnection struct {
	flow      movement.Flow
	cookie    wire.Cookie
	owner     int // -1: on its way
	places    []netip.AddrPort
	sequence  uint64
	announced map[uint64]netip.AddrPort
	followed  uint64 // the last move that the user has followed
	told      bool   // the program has told of a segment at the destination, and tells of no other
}

func place(server int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, byte(server), 1}), 8080)
}

func newSim(t *testing.T, n uint64, f faults, total map[string]int) *sim {
	s := &sim{
		t: t, seed: n, faults: f, total: total, random: rand.New(rand.NewPCG(n, 1)), now: start,
		follower: movement.NewFollower(movement.FollowerLimits{}),
	}
	for i := range s.servers {
		s.servers[i] = movement.NewAnnouncer(movement.AnnouncerLimits{}, signer)
	}
	s.follower.Set(service, published())
	for i := range s.conns {
		c := &simConnection{
			flow:   movement.Flow{User: netip.AddrPortFrom(flow.User.Addr(), uint16(40001+i)), VIP: flow.VIP},
			cookie: wire.Cookie{7: byte(1 + i)}, owner: s.random.IntN(simServers), announced: map[uint64]netip.AddrPort{},
		}
		c.places = []netip.AddrPort{c.flow.VIP, place(c.owner)}
		s.conns[i] = c
		s.follow(s.follower.Opened(s.now, movement.Connection{
			Flow: c.flow, Service: service, Tag: tag, Cookie: c.cookie, Destination: c.flow.VIP,
		}, place(c.owner)))
	}
	return s
}

func (s *sim) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("seed %d, after %v: %s", s.seed, s.now.Sub(start), fmt.Sprintf(format, args...))
}

func (s *sim) chance(thousandths int) bool { return !s.calm && s.random.IntN(1000) < thousandths }

func (s *sim) upTo(d time.Duration) time.Duration { return time.Duration(s.random.Int64N(int64(d))) }

// run has all happen, and looks at the end.
func (s *sim) run() {
	for i := range s.conns {
		s.after(s.upTo(time.Second), func() { s.move(i) })
		s.after(0, func() { s.speak(i) })
	}
	s.after(simTime, func() { s.calm = !s.faults.idle })
	for len(s.events) > 0 {
		e, _ := heap.Pop(&s.events).(event)
		s.now = e.at
		if s.now.Sub(start) > simTime+simAfter {
			break
		}
		e.do()
		s.schedule()
	}
	for _, c := range s.connections() {
		conn := s.conns[c.Flow.User.Port()-40001]
		if c.Destination != place(conn.owner) {
			s.fatalf("%v is at %v after move %d, its server is %d since move %d", c.Flow, c.Destination, c.Sequence, conn.owner, conn.sequence)
		}
	}
	for why, n := range s.follower.Counters().Refused {
		s.total["refused "+why.String()] += int(n)
	}
	s.total["followed"] += int(s.follower.Counters().Followed)
}

func (s *sim) connections() []movement.Connection { return s.follower.Connections() }

// schedule puts what is due at servers among the events.
func (s *sim) schedule() {
	for i, a := range s.servers {
		if n := a.Next(); !n.IsZero() && !n.Equal(s.ticks[i]) {
			s.ticks[i] = n
			s.after(n.Sub(s.now), func() {
				s.ticks[i] = time.Time{}
				s.announce(i, a.Tick(s.now))
			})
		}
	}
}

// move moves a connection to another server, in a while again.
func (s *sim) move(i int) {
	if s.now.Sub(start) >= simTime {
		return
	}
	c := s.conns[i]
	next := s.upTo(3 * time.Second)
	if s.faults.quick && s.random.IntN(4) > 0 {
		next = s.upTo(60 * time.Millisecond) // less than what packets take
	}
	if c.owner < 0 {
		s.after(next, func() { s.move(i) })
		return
	}
	from, to := c.owner, (c.owner+1+s.random.IntN(simServers-1))%simServers
	c.owner = -1
	s.servers[from].Held(c.flow)
	s.after(s.upTo(30*time.Millisecond), func() {
		if s.chance(100) { // it stays
			c.owner = from
			s.announce(from, s.servers[from].Released(s.now, c.flow))
		} else {
			s.give(c, from, to)
		}
		s.after(next, func() { s.move(i) })
	})
}

func (s *sim) give(c *simConnection, from, to int) {
	if places, ok := s.servers[from].Places(s.now, c.flow); ok {
		c.places = places
	}
	s.announce(from, s.servers[from].Gone(s.now, c.flow))
	c.owner, c.told = to, false
	c.sequence = movement.NextSequence(c.sequence, s.now)
	c.announced[c.sequence] = place(to)
	s.announce(to, s.servers[to].Took(s.now, wire.Change{
		Tag: tag, Cookie: c.cookie, User: c.flow.User, VIP: c.flow.VIP, Old: place(from), New: place(to), Sequence: c.sequence,
	}, c.places))
	s.total["moves"]++
}

// announce carries out what a server's machine says.
func (s *sim) announce(server int, actions []movement.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case movement.Send:
			s.total["sent"]++
			s.attack(a.Raw)
			s.packet(func() { s.follow(s.follower.Received(s.now, a.Raw), nil) })
		case movement.Listen:
			s.conns[a.Flow.User.Port()-40001].told = false
		case movement.Report:
			s.total[string(a.Outcome)]++
			if at := s.at(a.Flow); a.Outcome == movement.Arrived && at != place(server) && !s.faults.deceive() {
				s.fatalf("%v is reported to have arrived at %v, and is at %v", a.Flow, place(server), at)
			}
		}
	}
}

// at is where a user is.
func (s *sim) at(f movement.Flow) netip.AddrPort {
	all := s.connections()
	return all[slices.IndexFunc(all, func(c movement.Connection) bool { return c.Flow == f })].Destination
}

// packet has something happen when a packet has come, which may be never, or twice.
func (s *sim) packet(come func()) {
	if s.chance(s.faults.lose) {
		return
	}
	s.after(time.Millisecond+s.upTo(300*time.Millisecond), come)
	if s.chance(100) {
		s.after(s.upTo(time.Second), come) // a long way round
	}
	if s.chance(s.faults.double) {
		s.after(s.upTo(time.Second), come)
	}
}

// attack is what others do with a message that they see.
func (s *sim) attack(raw []byte) {
	if s.chance(s.faults.forge) {
		s.forge(slices.Clone(raw))
	}
	if s.faults.replay > 0 {
		s.heard = append(s.heard, raw)
	}
	if s.chance(s.faults.replay) {
		old := s.heard[s.random.IntN(len(s.heard))]
		s.after(s.upTo(3*time.Second), func() { s.follow(s.follower.Received(s.now, old), nil) })
	}
}

// forge makes a message of another one: any byte changed, or a move of the attacker's own.
func (s *sim) forge(raw []byte) {
	if d, err := wire.Decode(raw); err == nil && s.random.IntN(2) == 0 {
		d.Sequence += uint64(1 + s.random.IntN(5))
		d.New = place(s.random.IntN(simServers))
		d.Old = place(9)
		d.Time = s.now
		forged, err := wire.Sign(d.Change, private(66))
		if err != nil {
			s.fatalf("%v", err)
		}
		raw = forged.Raw
	} else {
		raw[s.random.IntN(len(raw))] ^= 1 << s.random.IntN(8)
	}
	s.after(s.upTo(time.Second), func() { s.follow(s.follower.Received(s.now, raw), nil) })
}

// follow carries out what the user's machine says.
func (s *sim) follow(actions []movement.Action, err error) {
	if err != nil {
		s.fatalf("%v", err)
	}
	for _, a := range actions {
		r, is := a.(movement.Rewrite)
		if !is || r.Sequence == 0 {
			continue
		}
		c := s.conns[r.Flow.User.Port()-40001]
		if to := c.announced[r.Sequence]; r.Destination != to {
			s.fatalf("%v is led to %v by move %d, which was to %v", r.Flow, r.Destination, r.Sequence, to)
		}
		if r.Sequence <= c.followed {
			s.fatalf("%v is led back from move %d to %d", r.Flow, c.followed, r.Sequence)
		}
		c.followed = r.Sequence
		s.knows(c)
	}
}

// knows holds that the server of a connection counts the user's place among those that it may be at.
func (s *sim) knows(c *simConnection) {
	if c.owner < 0 || s.faults.deceive() {
		return
	}
	places, ok := s.servers[c.owner].Places(s.now, c.flow)
	if at := s.at(c.flow); ok && len(places) > 0 && !slices.Contains(places, at) {
		s.fatalf("%v is at %v, server %d thinks of %v", c.flow, at, c.owner, places)
	}
}

// speak has a user send a segment to where it is led, now and then.
func (s *sim) speak(i int) {
	over := s.now.Sub(start) >= simTime
	if over && s.faults.idle {
		return
	}
	c := s.conns[i]
	at := s.at(c.flow)
	if s.chance(s.faults.spoof) && c.owner >= 0 {
		s.announce(c.owner, s.servers[c.owner].Heard(s.now, c.flow, place(c.owner)))
	}
	s.packet(func() { // who has it not sends it on
		if c.owner < 0 || c.told && at == place(c.owner) {
			return
		}
		c.told = c.told || at == place(c.owner)
		s.announce(c.owner, s.servers[c.owner].Heard(s.now, c.flow, at))
		s.knows(c)
	})
	s.after(s.upTo(200*time.Millisecond), func() { s.speak(i) })
}

// event is something that happens.
type event struct {
	at     time.Time
	number int
	do     func()
}

func (s *sim) after(d time.Duration, do func()) {
	s.number++
	heap.Push(&s.events, event{s.now.Add(d), s.number, do})
}

// events are those to come, the next in front.
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].number < e[j].number
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}
