package stray

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

var (
	runs = flag.Int("runs", 3000, "simulations")
	seed = flag.Uint64("seed", 0, "the one simulation to run; 0: all")
)

const (
	simServers = 4
	simFlows   = 12
)

// sim are servers whose words get lost, doubled and late, and connections that begin, move and end.
type sim struct {
	t       *testing.T
	seed    uint64
	random  *rand.Rand
	now     time.Time
	bad     bool // words suffer
	asker   *Asker
	holders []*Holder // of servers 1 and on; the asker is server 0
	mute    []bool
	at      [simFlows]int // whose the connection is; 0: nobody's
	had     [simFlows][simServers]bool
	entry   map[dataplane.Flow]int
	reset   map[dataplane.Flow]bool
	served  map[uint64]int // by number of the ask
	post    []letter
}

type letter struct {
	at   time.Time
	from int
	word Action
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{
		t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), now: start, bad: true, asker: newAsker(Limits{User: 1000, Asks: 1000}), mute: make([]bool, simServers),
		entry: map[dataplane.Flow]int{}, reset: map[dataplane.Flow]bool{}, served: map[uint64]int{},
	}
	s.asker.Set(views(simServers))
	s.holders = make([]*Holder, simServers)
	for i := 1; i < simServers; i++ {
		s.holders[i] = NewHolder(Limits{})
		s.holders[i].Set(views(simServers))
	}
	return s
}

func (s *sim) flow(f dataplane.Flow) int { return int(f.User.Addr().As4()[3]) }

// send loses one word of four, and doubles one of eight.
func (s *sim) send(from int, word Action) {
	for copies := 1; copies > 0; copies-- {
		delay := time.Millisecond
		if s.bad {
			if s.random.IntN(4) == 0 || s.mute[from] {
				continue
			}
			delay += time.Duration(s.random.IntN(100)) * time.Millisecond
			if s.random.IntN(8) == 0 {
				copies++
			}
		}
		s.post = append(s.post, letter{s.now.Add(delay), from, word})
	}
}

// do carries out what server i's machines say.
func (s *sim) do(i int, actions []Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case SayAsks, SayHoldings:
			s.send(i, a)
		case Look:
			known := s.at[s.flow(a.Ask.Flow)] == i
			out := s.holders[i].Looked(s.now, a, known)
			for _, o := range out {
				if _, is := o.(Inject); is {
					s.serve(i, a)
				}
			}
			s.do(i, out)
		case Check:
			s.do(i, s.holders[i].Checked(s.now, a.Flow, s.at[s.flow(a.Flow)] == i))
		case Inject:
			if i == 0 {
				s.reset[a.Flow] = true
			}
		case Lead:
			to := int(a.To.As4()[3]) - 1
			if !s.had[s.flow(a.Flow)][to] {
				s.t.Fatalf("seed %d: %v is led to %s, which never had it", s.seed, a.Flow, nameOf(to))
			}
			s.entry[a.Flow] = to
		case Drop:
			delete(s.entry, a.Flow)
		}
	}
}

// serve counts packets that went up at a server: each ask's once there.
func (s *sim) serve(i int, l Look) {
	key := l.Ask.Number*simServers + uint64(i)
	if s.served[key]++; s.served[key] > 1 {
		s.t.Fatalf("seed %d: the packet of ask %d went up %d times at %s", s.seed, l.Ask.Number, s.served[key], nameOf(i))
	}
}

// run lets time pass, and has something happen now and then.
func (s *sim) run(d time.Duration, happens func()) {
	for end := s.now.Add(d); s.now.Before(end); s.now = s.now.Add(5 * time.Millisecond) {
		post := s.post
		s.post = nil
		for _, l := range post {
			if l.at.After(s.now) {
				s.post = append(s.post, l)
				continue
			}
			s.deliver(l)
		}
		if n := s.asker.Next(); !n.IsZero() && !n.After(s.now) {
			s.do(0, s.asker.Tick(s.now))
		}
		for i := 1; i < simServers; i++ {
			if n := s.holders[i].Next(); !n.IsZero() && !n.After(s.now) {
				s.do(i, s.holders[i].Tick(s.now))
			}
		}
		happens()
	}
}

func (s *sim) deliver(l letter) {
	switch w := l.word.(type) {
	case SayAsks:
		for _, a := range w.Asks {
			for i := 1; i < simServers; i++ {
				s.do(i, s.holders[i].Asked(s.now, member(0), a))
			}
		}
	case SayHoldings:
		for _, h := range w.Holdings {
			s.do(0, s.asker.Answered(s.now, member(l.from), h))
		}
	}
}

// trouble is what happens to users and servers.
func (s *sim) trouble() {
	i := s.random.IntN(simFlows)
	switch s.random.IntN(40) {
	case 0: // it begins, or moves
		s.at[i] = 1 + s.random.IntN(simServers-1)
		s.had[i][s.at[i]] = true
	case 1:
		s.at[i] = 0
	case 2, 3, 4, 5, 6:
		s.packet(i)
	case 7:
		who := 1 + s.random.IntN(simServers-1)
		s.mute[who] = !s.mute[who]
		if m := member(who); s.mute[who] && s.random.IntN(2) == 0 {
			m.Health = control.Silent
			s.do(0, s.asker.Heard(s.now, m))
		}
	}
}

// packet is one of a flow that comes to the asker.
func (s *sim) packet(i int) {
	if _, led := s.entry[flowOf(i)]; !led {
		s.do(0, s.asker.Stray(s.now, strayOf(i)))
	}
}

// TestEachFlowEndsWithItsHolder: whatever becomes of words, no entry leads to who never had the connection, and when they come through again
// each flow that has packets is led to its holder, or is nobody's and is reset.
func TestEachFlowEndsWithItsHolder(t *testing.T) {
	first, last := uint64(1), uint64(*runs)
	if *seed != 0 {
		first, last = *seed, *seed
	}
	if testing.Short() {
		last = min(last, first+200)
	}
	for n := first; n <= last; n++ {
		s := newSim(t, n)
		s.run(4*time.Second, s.trouble)
		s.bad = false
		clear(s.mute)
		s.run(31*time.Second, func() {}) // what is wrong is asked for again
		clear(s.reset)
		for i := range simFlows {
			s.packet(i)
		}
		s.run(time.Second, func() {})
		for i := range simFlows {
			if led, is := s.entry[flowOf(i)]; is != (s.at[i] != 0) || is && led != s.at[i] || !is && !s.reset[flowOf(i)] {
				t.Fatalf("seed %d: flow %d of server %d is led to %d (%t), reset %t", n, i, s.at[i], led, is, s.reset[flowOf(i)])
			}
		}
		if s.asker.Led() != len(s.entry) {
			t.Fatalf("seed %d: %d entries, %d known", n, len(s.entry), s.asker.Led())
		}
	}
}
