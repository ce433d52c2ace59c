package handover_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/epoch"

	"github.com/manycast/manycast/lbd/internal/handover"
)

// Times of the simulated servers: a tenth of the real ones.
const (
	deadline = 200 * time.Millisecond
	silence  = 250 * time.Millisecond
)

// limits are such as suit, or any: what is promised does not hang on them.
func (w *world) someLimits(any bool) handover.Limits {
	l := handover.Limits{
		Window: 3, Give: 40 * time.Millisecond, Wait: 50 * time.Millisecond, Restore: 100 * time.Millisecond, Import: 100 * time.Millisecond,
		Answer: 250 * time.Millisecond, Doubt: 500 * time.Millisecond, Remember: time.Second,
		Backoff: 2 * time.Millisecond, MaxBackoff: 50 * time.Millisecond,
	}
	if any {
		for _, d := range []*time.Duration{&l.Give, &l.Wait, &l.Restore, &l.Import, &l.Answer, &l.Doubt, &l.Remember} {
			*d = time.Millisecond << w.r.IntN(10)
		}
	}
	return l
}

// server is a kernel, an application and an agent that does what the machines say.
type server struct {
	w      *world
	name   string
	number int
	down   bool      // all of it
	dead   bool      // its agent
	deaf   time.Time // to the control channel, until then
	paused time.Time // its agent, until then

	boot   uint64
	giver  *handover.Giver
	taker  *handover.Taker
	out    map[string]*link // to takers
	in     map[string]*link // from givers
	tick   time.Time
	free   map[handover.Flow]time.Time // when what was begun of a flow is over
	epoch  epoch.Epoch
	owners map[handover.Flow]int

	sockets  map[handover.Flow]*socket
	apps     map[handover.Flow]*application
	exported map[handover.Flow]*application // given by the application, not yet away
	held     map[handover.Flow]*[]packet
	passed   map[handover.Flow]string
}

func (s *server) begin() {
	s.w.boots++
	s.boot, s.down, s.dead = s.w.boots, false, false
	if s.sockets == nil {
		s.sockets, s.apps = map[handover.Flow]*socket{}, map[handover.Flow]*application{}
	}
	s.giver = handover.NewGiver(s.name, s.boot, s.w.limits)
	s.taker = handover.NewTaker(s.name, s.boot, "10.0.0.1:8465", s.w.limits)
	s.out, s.in, s.free, s.tick = map[string]*link{}, map[string]*link{}, map[handover.Flow]time.Time{}, time.Time{}
	s.exported, s.held, s.passed = map[handover.Flow]*application{}, map[handover.Flow]*[]packet{}, map[handover.Flow]string{}
	for _, o := range s.w.servers { // what the control channel says of a new boot, and of others
		if o != s && !o.dead {
			s.w.after(s.w.some(100*time.Millisecond), o.alive(func() { o.do(o.giver.Started(s.w.now, s.name, s.boot)) }))
		}
	}
}

// alive is do, as long as the agent is the one that it is now.
func (s *server) alive(do func()) func() {
	return s.of(s.boot, do)
}

// of is do, if the agent is of that boot; where it is paused, afterwards.
func (s *server) of(boot uint64, do func()) func() {
	var run func()
	run = func() {
		switch {
		case s.boot != boot || s.dead:
		case s.paused.After(s.w.now):
			s.w.at(s.paused, run)
		default:
			do()
		}
	}
	return run
}

// pause stops the agent for a while; others may find it silent.
func (s *server) pause() {
	w := s.w
	s.paused = w.now.Add(w.some(2 * time.Second))
	w.logf("%s pauses until %v", s.name, s.paused.Sub(w.start))
	for _, o := range w.servers {
		if o != s {
			w.after(silence+w.some(50*time.Millisecond), o.alive(func() {
				if s.paused.After(w.now) {
					o.do(o.giver.Silent(w.now, s.name))
				}
			}))
		}
	}
}

// crash ends the agent, or the whole server. Either way what is frozen is gone; an application goes on with what is not.
func (s *server) crash() {
	w := s.w
	s.dead, s.down = true, w.r.IntN(2) == 0
	w.logf("%s crashes, whole=%v", s.name, s.down)
	for _, c := range w.conns {
		k := s.sockets[c.flow]
		if k == nil {
			continue
		}
		if s.down || k.frozen {
			c.excuse = "its server crashed"
			delete(s.sockets, c.flow)
			delete(s.apps, c.flow)
		} else if s.apps[c.flow] == nil {
			s.apps[c.flow] = s.exported[c.flow]
		}
	}
	s.held, s.passed = nil, nil
	for _, l := range s.out {
		l.snap()
	}
	for _, l := range s.in {
		l.snap()
	}
	boot := s.boot
	for _, o := range w.servers {
		if o != s {
			w.after(silence+w.some(50*time.Millisecond), o.alive(func() {
				if s.dead && s.boot == boot {
					o.do(o.giver.Silent(w.now, s.name))
				}
			}))
		}
	}
	away := 600 * time.Millisecond
	if !s.down { // an agent is soon there again, perhaps before anybody missed it
		away = 30 * time.Millisecond
	}
	w.after(2*time.Millisecond+w.some(away), s.begin)
}

// allocated is an allocation, as the server learns of it.
func (s *server) allocated(e epoch.Epoch, owners map[handover.Flow]int) {
	if e.Less(s.epoch) {
		return
	}
	s.epoch, s.owners = e, owners
	s.do(s.taker.Want(s.w.now, "web", e, s.others(), s.w.now.Add(deadline)))
}

func (s *server) others() []string {
	var names []string
	for _, o := range s.w.servers {
		if o != s {
			names = append(names, o.name)
		}
	}
	return names
}

// do carries out actions, and sees to the next tick. A server may die at any of them.
func (s *server) do(all []handover.Action) {
	for _, a := range all {
		if s.w.chance(s.w.faults.crash) {
			s.crash()
			return
		}
		if s.dies(a) {
			return
		}
		if s.w.chance(s.w.faults.deaf) {
			s.deaf = s.w.now.Add(s.w.some(time.Second))
		}
		if s.w.chance(s.w.faults.pause) && !s.paused.After(s.w.now) {
			s.pause()
		}
		s.w.logf("%s %T %+v", s.name, a, a)
		s.carryOut(a)
	}
	for _, next := range []time.Time{s.giver.Next(), s.taker.Next()} {
		if !next.IsZero() && (s.tick.IsZero() || next.Before(s.tick)) {
			s.tick = next
			s.w.at(next, s.alive(func() {
				if s.tick.Equal(next) { // else an earlier one has come in between
					s.tick = time.Time{}
					s.do(append(s.giver.Tick(s.w.now), s.taker.Tick(s.w.now)...))
				}
			}))
		}
	}
}

// dies kills a server if this is the step at which one is to die, and reports whether it was this one.
func (s *server) dies(a handover.Action) bool {
	c := &s.w.crashes
	if c.done || stepOf(a) != c.at || s.w.calm {
		return false
	}
	if c.after--; c.after >= 0 {
		return false
	}
	victim := s
	if c.peer {
		others := slices.DeleteFunc(slices.Clone(s.w.servers), func(o *server) bool { return o == s || o.dead })
		if len(others) == 0 {
			return false
		}
		victim = others[s.w.r.IntN(len(others))]
	}
	c.done = true
	victim.crash()
	return victim == s
}

// stepOf names an action, and what is sent by the message.
func stepOf(a handover.Action) string {
	var what any = a
	switch a := a.(type) {
	case handover.Send:
		what = a.Message
	case handover.Say:
		what = a.Word
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", what), "handover.")
}

// later does something of a flow when what was begun before is over.
func (s *server) later(f handover.Flow, do func()) {
	at := s.w.now
	if s.free[f].After(at) {
		at = s.free[f]
	}
	at = at.Add(s.w.some(300 * time.Microsecond))
	if s.w.chance(s.w.faults.stall) {
		at = at.Add(s.w.some(150 * time.Millisecond))
	}
	s.free[f] = at.Add(1)
	s.w.at(at, s.alive(do))
}

func (s *server) carryOut(a handover.Action) {
	w := s.w
	switch a := a.(type) {
	case handover.Send:
		s.send(a.To, a.Message)
	case handover.Say:
		s.say(a.Word)
	case handover.Dial:
		s.dial(w.named(a.To))
	case handover.Report:
		w.reports[a.Outcome]++
		w.why[a.Why.Reason]++
		if a.Outcome == handover.Lost {
			w.conn(a.Flow).excuse = "nobody knew"
		}
	case handover.Finished, handover.Arrived:
	case handover.Export, handover.GiveBack, handover.Pass, handover.Unpass, handover.Freeze, handover.Thaw, handover.Close:
		s.give(a)
	default:
		s.take(a)
	}
}

// refuses says that somebody says no.
func (s *server) refuses() error {
	if s.w.chance(s.w.faults.refuse) {
		return errNo
	}
	return nil
}

// give carries out what a giver says of its connections.
func (s *server) give(a handover.Action) {
	w := s.w
	switch a := a.(type) {
	case handover.Export:
		s.later(a.Flow, func() {
			err := s.refuses()
			app := s.apps[a.Flow]
			if err == nil && app == nil {
				w.fatalf("%s: %v is exported twice", s.name, a.Flow)
			}
			var body []byte
			if err == nil {
				s.exported[a.Flow], body = app, encode(app)
				delete(s.apps, a.Flow)
			}
			s.do(s.giver.Exported(w.now, a.ID, body, err))
		})
	case handover.GiveBack:
		s.later(a.Flow, func() {
			if app := s.exported[a.Flow]; app != nil {
				s.apps[a.Flow] = app
				delete(s.exported, a.Flow)
			}
		})
	case handover.Pass:
		s.later(a.Flow, func() { s.passed[a.Flow] = a.To })
	case handover.Unpass:
		s.later(a.Flow, func() { delete(s.passed, a.Flow) })
	case handover.Freeze:
		s.later(a.Flow, func() {
			k := s.sockets[a.Flow]
			err := s.refuses()
			var body []byte
			if err == nil {
				k.frozen, body = true, encode(k.state)
			}
			s.do(s.giver.Frozen(w.now, a.ID, body, err))
		})
	case handover.Thaw:
		s.later(a.Flow, func() { s.speaks(a.Flow) })
	case handover.Close:
		s.later(a.Flow, func() {
			if k := s.sockets[a.Flow]; k == nil || !k.frozen {
				w.fatalf("%s closes %v, which is not frozen", s.name, a.Flow)
			}
			delete(s.sockets, a.Flow)
			delete(s.exported, a.Flow)
			delete(s.passed, a.Flow)
		})
	}
}

// speaks thaws a socket, if it is still there.
func (s *server) speaks(f handover.Flow) {
	if k := s.sockets[f]; k != nil {
		k.frozen = false
		s.w.exclusive(s.w.conn(f))
	}
}

// take carries out what a taker says of its connections.
func (s *server) take(a handover.Action) {
	w := s.w
	switch a := a.(type) {
	case handover.Hold:
		s.later(a.Flow, func() { s.held[a.Flow] = &[]packet{} })
	case handover.Restore:
		s.later(a.Flow, func() {
			err := s.refuses()
			if s.sockets[a.Flow] != nil {
				w.fatalf("%s has a socket of %v when another one is restored", s.name, a.Flow)
			}
			if err == nil {
				s.sockets[a.Flow] = &socket{frozen: true, state: decode[kernel](a.Kernel)}
			}
			s.do(s.taker.Restored(w.now, a.ID, err))
		})
	case handover.Import:
		s.later(a.Flow, func() {
			err := s.refuses()
			if app := decode[application](a.Application); err == nil {
				s.apps[a.Flow] = &app
			}
			s.do(s.taker.Imported(w.now, a.ID, err))
		})
	case handover.GoLive:
		s.later(a.Flow, func() {
			err := s.refuses()
			if err == nil {
				s.speaks(a.Flow)
			}
			s.do(s.taker.Thawed(w.now, a.ID, err))
		})
	case handover.Discard:
		s.later(a.Flow, func() {
			if k := s.sockets[a.Flow]; k != nil && !k.frozen {
				w.fatalf("%s discards %v, which speaks", s.name, a.Flow)
			}
			delete(s.sockets, a.Flow)
			delete(s.apps, a.Flow)
		})
	case handover.Open:
		s.later(a.Flow, func() {
			if q := s.held[a.Flow]; q != nil {
				delete(s.held, a.Flow)
				for _, p := range *q {
					s.packet(w.conn(a.Flow), p, 3)
				}
			}
		})
	default:
		w.fatalf("nobody knows %T", a)
	}
}

// say is the control channel: words are lost, doubled, and come in any order.
func (s *server) say(word handover.Word) {
	w := s.w
	for _, o := range w.servers {
		if o == s {
			continue
		}
		for range 1 + btoi(w.chance(w.faults.double)) {
			if w.chance(w.faults.lose) || s.deaf.After(w.now) || o.deaf.After(w.now) {
				continue
			}
			w.after(100*time.Microsecond+w.some(8*time.Millisecond), o.alive(func() { o.hear(s.name, word) }))
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *server) hear(from string, word handover.Word) {
	w := s.w
	switch word := word.(type) {
	case handover.Ask:
		if slices.Contains(word.From, s.name) {
			// One of another epoch comes to the machine as well, without flows.
			all, _ := s.giver.Asked(w.now, handover.Asked{Taker: from, Ask: word, Flows: s.flowsFor(from, word), Deadline: w.now.Add(deadline)})
			s.do(all)
		}
	case handover.Query:
		s.do(s.taker.Asked(w.now, from, word))
	case handover.Verdict:
		s.do(s.giver.Verdict(w.now, from, word))
	}
}

// flowsFor are the connections here that are a taker's.
func (s *server) flowsFor(taker string, a handover.Ask) []handover.Flow {
	var flows []handover.Flow
	for _, c := range s.w.conns {
		k := s.sockets[c.flow]
		if a.Epoch == s.epoch && k != nil && !k.frozen && s.w.servers[s.owners[c.flow]].name == taker && (a.Flow == nil || *a.Flow == c.flow) {
			flows = append(flows, c.flow)
		}
	}
	return flows
}

// refusal is what an offer is refused for.
func (s *server) refusal(o handover.Offer) handover.Why {
	switch k := s.sockets[o.Flow]; {
	case o.Epoch.Less(s.epoch):
		return handover.Why{Reason: handover.Stale}
	case o.Epoch != s.epoch || s.owners[o.Flow] != s.number:
		return handover.Why{Reason: handover.Foreign}
	case k != nil && !k.frozen:
		return handover.Why{Reason: handover.Here}
	}
	return handover.Why{}
}

// link is one from a giver to a taker: in order, until it breaks; then each end has had some of what was on the way.
type link struct {
	ends [2]*server // giver, taker
	boot [2]uint64
	last [2]time.Time // to the taker, to the giver
	cut  [2]time.Time // what comes later than this is lost; zero: nothing
}

func (s *server) dial(to *server) {
	w := s.w
	w.after(100*time.Microsecond+w.some(2*time.Millisecond), s.alive(func() {
		if to.dead || to.paused.After(w.now) || w.chance(w.faults.snap) {
			s.do(s.giver.LinkDown(w.now, to.name))
			return
		}
		l := &link{ends: [2]*server{s, to}, boot: [2]uint64{s.boot, to.boot}}
		s.out[to.name], to.in[s.name] = l, l
		to.do(to.taker.LinkUp(w.now, s.name, s.boot))
		if !s.dead && s.boot == l.boot[0] {
			s.do(s.giver.LinkUp(w.now, to.name, l.boot[1]))
		}
	}))
}

func (s *server) send(to string, m handover.Message) {
	l, direction := s.out[to], 0
	switch m.(type) {
	case handover.Ready, handover.Refused, handover.Took, handover.Failed:
		l, direction = s.in[to], 1
	}
	if l == nil {
		return
	}
	w := s.w
	if w.chance(w.faults.snap) {
		l.snap()
	}
	pause := 50*time.Microsecond + w.some(300*time.Microsecond)
	if w.chance(w.faults.stall) {
		pause += w.some(400 * time.Millisecond)
	}
	if state, ok := m.(handover.State); ok && w.r.IntN(4) == 0 { // one in parts
		l.deliver(direction, pause, handover.Coming{ID: state.ID})
		pause += w.some(20 * time.Millisecond)
	}
	l.deliver(direction, pause, m)
}

// deliver brings a message to the end that a direction leads to, after all that was sent before it.
func (l *link) deliver(direction int, pause time.Duration, m handover.Message) {
	to := l.ends[1-direction]
	w := to.w
	at := w.now.Add(pause)
	if l.last[direction].After(at) {
		at = l.last[direction]
	}
	l.last[direction] = at
	w.at(at, func() {
		if cut := l.cut[direction]; cut.IsZero() || !w.now.After(cut) { // it has come to the other host: the agent reads it when it can
			to.of(l.boot[1-direction], func() { l.receive(direction, m) })()
		}
	})
}

func (l *link) receive(direction int, m handover.Message) {
	from, to := l.ends[direction], l.ends[1-direction]
	w := from.w
	switch {
	case direction == 1 && to.out[from.name] == l:
		to.do(to.giver.Received(w.now, from.name, m))
	case direction == 0 && to.in[from.name] == l:
		if o, ok := m.(handover.Offer); ok {
			to.do(to.giver.Returned(w.now, o))
			if !to.dead && to.in[from.name] == l {
				to.do(to.taker.Offered(w.now, from.name, o, to.refusal(o)))
			}
			return
		}
		to.do(to.taker.Received(w.now, from.name, m))
	}
}

// snap breaks the link: each end learns of it in its own time, after the last that has come through.
func (l *link) snap() {
	if !l.cut[0].IsZero() {
		return
	}
	w := l.ends[0].w
	for direction := range l.cut {
		l.cut[direction] = w.now.Add(w.some(60 * time.Millisecond))
		giver, taker := l.ends[0], l.ends[1]
		end := l.ends[1-direction]
		boot := l.boot[1-direction]
		w.at(l.cut[direction].Add(1+w.some(30*time.Millisecond)), end.of(boot, func() {
			switch {
			case direction == 1 && giver.out[taker.name] == l:
				delete(giver.out, taker.name)
				giver.do(giver.giver.LinkDown(w.now, taker.name))
			case direction == 0 && taker.in[giver.name] == l:
				delete(taker.in, giver.name)
				taker.do(taker.taker.LinkDown(w.now, giver.name))
			}
		}))
	}
}
