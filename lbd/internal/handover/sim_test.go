package handover_test

import (
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/epoch"

	"github.com/manycast/manycast/lbd/internal/handover"
)

// world is a pool of servers, their users and what is between them, in a time of its own: events in order, each at its time.
type world struct {
	t       testing.TB
	r       *rand.Rand
	faults  faults
	limits  handover.Limits
	start   time.Time
	now     time.Time
	events  events
	seq     int
	servers []*server
	conns   []*conn
	epoch   uint64
	boots   uint64
	calm    bool // no more faults
	crashes crashes
	trace   []string
	reports map[handover.Outcome]int
	why     map[handover.Reason]int
}

// faults are chances, in a thousand.
type faults struct {
	lose, double int           // of each word on the control channel
	packet       int           // of each packet to be lost
	snap         int           // of each message on a link to break it
	crash        int           // of each step of a transfer to kill its server
	refuse       int           // of application or kernel to say no
	stall        int           // of an application or a link to take very long
	deaf         int           // of each step to cut its server off the control channel for a while
	pause        int           // of each step to stop its agent for a while
	moves        time.Duration // mean time between reallocations
}

// crashes kills a server, once, when one comes to a step.
type crashes struct {
	at    string // stepOf an action; empty: never
	after int    // so many of these
	peer  bool   // another server than the one that comes to it
	done  bool
}

func (f faults) none() bool { return f == faults{moves: f.moves} }

type happening struct {
	at  time.Time
	seq int
	do  func()
}

type events []happening

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || (e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq)
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(happening)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

func (w *world) after(d time.Duration, do func()) { w.at(w.now.Add(d), do) }

func (w *world) at(at time.Time, do func()) {
	w.seq++
	heap.Push(&w.events, happening{at, w.seq, do})
}

// some is a time up to d.
func (w *world) some(d time.Duration) time.Duration { return time.Duration(w.r.Int64N(int64(d))) }

// chance comes true n times in a thousand while there are faults.
func (w *world) chance(n int) bool { return !w.calm && n > 0 && w.r.IntN(1000) < n }

func (w *world) run(until time.Duration) {
	for len(w.events) > 0 && w.events[0].at.Sub(w.start) < until {
		e := heap.Pop(&w.events).(happening)
		w.now = e.at
		e.do()
		if len(w.events) > 100_000 {
			w.fatalf("events breed")
		}
	}
}

func (w *world) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%9.3fms ", float64(w.now.Sub(w.start).Microseconds())/1000)+fmt.Sprintf(format, args...))
}

// fatalf ends a run with what happened last.
func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	for _, line := range w.trace[max(0, len(w.trace)-120):] {
		w.t.Log(line)
	}
	w.t.Fatalf(format, args...)
}

// conn is a connection as its user sees it. Both streams are numbers: byte n has the value n.
type conn struct {
	flow   handover.Flow
	owner  int // server, by the newest allocation
	sent   int // bytes that the user has begun to send
	acked  int // of them
	got    int // bytes from the server
	reset  bool
	excuse string // why it may be lost
}

// socket is a connection as a kernel sees it.
type socket struct {
	frozen bool
	state  kernel
}

// kernel is what repair would carry.
type kernel struct {
	Received int   // bytes from the user
	Unread   []int // of them, in the queue
	Acked    int   // bytes to the user that it has
	Unacked  []int // those that it has not
}

// application is what the application knows of a connection.
type application struct{ Read, Wrote int }

// exclusive checks that no connection has two sockets that speak.
func (w *world) exclusive(c *conn) {
	var at []string
	for _, s := range w.servers {
		if k := s.sockets[c.flow]; k != nil && !k.frozen {
			at = append(at, s.name)
		}
	}
	if len(at) > 1 {
		w.fatalf("%v speaks at %v", c.flow, at)
	}
}

// packet goes to a server: data from the user, and an acknowledgment.
type packet struct {
	seq  int
	data []int
	ack  int
}

// send is the user: what is not acknowledged, and a little more.
func (w *world) send(c *conn) {
	if c.reset {
		return
	}
	if c.sent-c.acked < 20 {
		c.sent += 1 + w.r.IntN(3)
	}
	p := packet{seq: c.acked, ack: c.got}
	for n := c.acked; n < c.sent; n++ {
		p.data = append(p.data, n)
	}
	if !w.chance(w.faults.packet) {
		owner := w.servers[c.owner]
		w.after(100*time.Microsecond+w.some(time.Millisecond), func() { owner.packet(c, p, 4) })
	}
	w.after(3*time.Millisecond+w.some(4*time.Millisecond), func() { w.send(c) })
}

// receive is the user: data from a server, and an acknowledgment.
func (w *world) receive(c *conn, p packet) {
	if c.reset {
		return
	}
	if p.ack > c.sent {
		w.fatalf("%v: byte %d was acknowledged, %d were sent", c.flow, p.ack, c.sent)
	}
	c.acked = max(c.acked, p.ack)
	for i, value := range p.data {
		if n := p.seq + i; n == c.got {
			if value != n {
				w.fatalf("%v: the user's byte %d is %d", c.flow, n, value)
			}
			c.got++
		}
	}
}

// packet is what comes to a server. What is nobody's here goes the forward way; the hops end circles.
func (s *server) packet(c *conn, p packet, hops int) {
	w := s.w
	k := s.sockets[c.flow]
	switch {
	case s.down || hops == 0:
	case s.held[c.flow] != nil:
		if q := s.held[c.flow]; len(*q) < 8 {
			*q = append(*q, p)
		}
	case s.passed[c.flow] != "":
		to := w.named(s.passed[c.flow])
		w.after(50*time.Microsecond+w.some(300*time.Microsecond), func() { to.packet(c, p, hops-1) })
	case k == nil:
		s.forward(c, p, hops)
	case !k.frozen:
		k.take(p)
		s.answer(c, k)
	}
}

// forward sends a packet to whoever holds the connection; where nobody does, its user is told.
func (s *server) forward(c *conn, p packet, hops int) {
	w := s.w
	holder := false
	for _, o := range w.servers {
		k := o.sockets[c.flow]
		holder = holder || k != nil
		if k != nil {
			w.after(50*time.Microsecond+w.some(300*time.Microsecond), func() { o.packet(c, p, hops-1) })
			break
		}
	}
	switch {
	case !holder:
		c.reset = true
		w.logf("%s resets %v", s.name, c.flow)
	case !s.dead && s.owners != nil && s.owners[c.flow] == s.number && w.r.IntN(4) == 0:
		s.do(s.taker.WantFlow(w.now, "web", s.epoch, c.flow, s.others(), w.now.Add(deadline)))
	}
}

func (k *socket) take(p packet) {
	for i, value := range p.data {
		if p.seq+i == k.state.Received {
			k.state.Received++
			k.state.Unread = append(k.state.Unread, value)
		}
	}
	for ; k.state.Acked < p.ack && len(k.state.Unacked) > 0; k.state.Acked++ {
		k.state.Unacked = k.state.Unacked[1:]
	}
}

func (s *server) answer(c *conn, k *socket) {
	p := packet{k.state.Acked, slices.Clone(k.state.Unacked), k.state.Received}
	if !s.w.chance(s.w.faults.packet) {
		s.w.after(100*time.Microsecond+s.w.some(time.Millisecond), func() { s.w.receive(c, p) })
	}
}

// work is an application: it reads what there is, checks it, and writes the next number.
func (s *server) work(c *conn) {
	k, a := s.sockets[c.flow], s.apps[c.flow]
	if k == nil || k.frozen || a == nil {
		return
	}
	for _, value := range k.state.Unread {
		if value != a.Read {
			s.w.fatalf("%s: %v: the application's byte %d is %d", s.name, c.flow, a.Read, value)
		}
		a.Read++
	}
	k.state.Unread = nil
	if len(k.state.Unacked) < 20 {
		k.state.Unacked = append(k.state.Unacked, a.Wrote)
		a.Wrote++
	}
	s.answer(c, k)
}

// newWorld has n servers and m connections, on one after the other.
func newWorld(t testing.TB, seed uint64, f faults, n, m int) *world {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &world{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), faults: f, start: start, now: start, epoch: 1,
		reports: map[handover.Outcome]int{}, why: map[handover.Reason]int{},
	}
	w.limits = w.someLimits(!f.none() && seed%2 == 0)
	for i := range n {
		s := &server{w: w, name: fmt.Sprintf("s%d", i), number: i}
		w.servers = append(w.servers, s)
		s.begin()
	}
	for i := range m {
		c := &conn{flow: flow(i), owner: i % n}
		w.conns = append(w.conns, c)
		s := w.servers[c.owner]
		s.sockets[c.flow], s.apps[c.flow] = &socket{}, &application{}
		w.after(w.some(5*time.Millisecond), func() { w.send(c) })
	}
	w.applications()
	w.after(w.some(f.moves), w.reallocate)
	return w
}

func (w *world) applications() {
	for _, s := range w.servers {
		for _, c := range w.conns {
			s.work(c)
		}
	}
	w.after(5*time.Millisecond, w.applications)
}

func (w *world) named(name string) *server {
	i := slices.IndexFunc(w.servers, func(s *server) bool { return s.name == name })
	return w.servers[i]
}

func (w *world) conn(f handover.Flow) *conn {
	i := slices.IndexFunc(w.conns, func(c *conn) bool { return c.flow == f })
	return w.conns[i]
}

// reallocate gives some connections new owners; sometimes one server loses all that it has. Servers learn of it one by one.
func (w *world) reallocate() {
	if w.calm {
		return
	}
	w.epoch++
	drained := w.r.IntN(3 * len(w.servers))
	for _, c := range w.conns {
		if c.owner == drained || w.r.IntN(3) == 0 {
			c.owner = w.r.IntN(len(w.servers))
			if c.owner == drained {
				c.owner = (drained + 1) % len(w.servers)
			}
		}
	}
	owners := make(map[handover.Flow]int, len(w.conns))
	for _, c := range w.conns {
		owners[c.flow] = c.owner
	}
	e := epoch.Epoch{Term: 1, Number: w.epoch}
	w.logf("epoch %v", e)
	for _, s := range w.servers {
		w.after(w.some(5*time.Millisecond), s.alive(func() { s.allocated(e, owners) }))
	}
	w.after(w.faults.moves/2+w.some(w.faults.moves), w.reallocate)
}

// check is what has to be at the end.
func (w *world) check() (alive, gone int) {
	type progress struct{ got, acked int }
	before := map[*conn]progress{}
	for _, c := range w.conns {
		before[c] = progress{c.got, c.acked}
	}
	w.run(w.now.Sub(w.start) + 200*time.Millisecond)
	for _, c := range w.conns {
		w.exclusive(c)
		var at []string
		for _, s := range w.servers {
			if k := s.sockets[c.flow]; k != nil {
				at = append(at, fmt.Sprintf("%s frozen=%v", s.name, k.frozen))
				if k.frozen || s.apps[c.flow] == nil {
					w.fatalf("%v at %s is left frozen=%v, application %v", c.flow, s.name, k.frozen, s.apps[c.flow])
				}
			}
			if s.held[c.flow] != nil || s.passed[c.flow] != "" {
				w.fatalf("%v: a gate of %s is left", c.flow, s.name)
			}
		}
		switch {
		case len(at) == 1 && !c.reset:
			alive++
			if c.got == before[c].got || c.acked == before[c].acked {
				w.fatalf("%v at %v is stuck: the user has %d bytes, and %d of %d are acknowledged", c.flow, at, c.got, c.acked, c.sent)
			}
		case c.excuse != "":
			gone++
		default:
			w.fatalf("%v is lost without a cause: at %v, reset %v", c.flow, at, c.reset)
		}
	}
	for _, s := range w.servers {
		if all := append(s.giver.Status(), s.taker.Status()...); len(all) > 0 {
			w.fatalf("%s is left with %+v", s.name, all)
		}
	}
	return alive, gone
}

var errNo = errors.New("no")

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func decode[T any](b []byte) T {
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		panic(err)
	}
	return v
}
