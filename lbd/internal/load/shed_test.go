package load

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// pool are servers whose users are as many, and connections last for a time. What one cannot do at once waits.
type pool struct {
	lasting float64 // seconds
	says    bool    // the application says its load, above 1 too; else only the CPU tells, and the queue
	servers []simulated
}

type simulated struct {
	open, waiting float64 // work, 1 being what the server can do in a second
	load          average
	shedding      Shedding
	served        float64
}

const (
	backlog   = 4.0 // seconds of work
	threshold = 0.9
)

func newPool(lasting float64, says bool) *pool {
	return &pool{lasting: lasting, says: says, servers: make([]simulated, 3)}
}

// step lets a second pass in which each server is offered so much. Reports of others are a second old.
func (p *pool) step(offered float64) {
	var heard []float64
	for i := range p.servers {
		heard = append(heard, p.servers[i].load.value)
	}
	for i := range p.servers {
		s := &p.servers[i]
		s.open += (offered*(1-s.shedding.Refused) - s.open) * (1 - math.Exp(-1/p.lasting))
		work := s.open + s.waiting
		s.served = min(work, 1)
		s.waiting = min(work-s.served, backlog)
		o := Overload{Threshold: threshold, Lasting: time.Duration(p.lasting * float64(time.Second))}
		if p.says {
			s.load.add(time.Second, s.open)
			o.Own = s.load.value
		} else {
			s.load.add(time.Second, s.served)
			o.Own = s.load.value + full*s.waiting/backlog
		}
		for j, other := range heard {
			if j != i {
				o.Others = append(o.Others, other)
			}
		}
		s.shedding = s.shedding.Next(time.Second, o)
	}
}

func (p *pool) run(seconds int, offered float64, each func(*simulated)) {
	for range seconds {
		p.step(offered)
		for i := range p.servers {
			each(&p.servers[i])
		}
	}
}

// TestSheddingSettles offers twice of what all servers can do, for ten minutes. They go on serving near their capacity, the part that
// is refused swings past its aim once at most and then stands still, and is back at nothing when the load is.
func TestSheddingSettles(t *testing.T) {
	for _, says := range []bool{true, false} {
		for _, lasting := range []float64{0.1, 1, 10, 30} {
			t.Run(fmt.Sprintf("application says %v, connections last %vs", says, lasting), func(t *testing.T) {
				p := newPool(lasting, says)
				p.run(200, 0.5, func(s *simulated) {
					if s.shedding.Refused > 0 {
						t.Fatal("sheds though there is little to do")
					}
				})
				served, turns, rising, last := 0.0, 0, true, 0.0
				p.run(600, 2, func(s *simulated) {
					served += s.served / 600 / 3
					if s != &p.servers[0] {
						return
					}
					if r := s.shedding.Refused; r != last && r > last != rising {
						turns, rising = turns+1, !rising
					}
					last = s.shedding.Refused
				})
				if served < 0.85 {
					t.Errorf("served %.2f of what the servers can do, want at least 0.85", served)
				}
				if turns > 2 {
					t.Errorf("what is refused changed its direction %d times: it oscillates", turns)
				}
				if last < 0.5 || last > 0.6 {
					t.Errorf("%.2f of the users refused at last, want 0.5 to 0.6", last)
				}
				settled := last
				p.run(60, 2, func(s *simulated) {
					if math.Abs(s.shedding.Refused-settled) > 0.02 || s.served < 0.84 || s.waiting > 0 {
						t.Fatalf("settled at %.3f, and then refuses %.3f, serves %.2f, %.2f wait", settled, s.shedding.Refused, s.served, s.waiting)
					}
				})
				p.run(600, 0.5, func(*simulated) {})
				p.run(60, 0.5, func(s *simulated) {
					if s.shedding.Refused != 0 {
						t.Fatalf("sheds %.3f though there is little to do again", s.shedding.Refused)
					}
				})
			})
		}
	}
}

// after is what is refused after so many seconds of the same.
func after(seconds int, s Shedding, o Overload) Shedding {
	for range seconds {
		s = s.Next(time.Second, o)
	}
	return s
}

func TestSheddingRules(t *testing.T) {
	idle, busy := Overload{Threshold: 0.9, Own: 0.3}, Overload{Threshold: 0.9, Own: 1}
	with := func(o Overload, others ...float64) Overload { o.Others = others; return o }
	alone := busy
	alone.Alone = true
	half := Resumed(512)
	for _, tt := range []struct {
		name     string
		from     Shedding
		o        Overload
		seconds  int
		low, hig int // of 1,024
	}{
		{"everybody is busy", Shedding{}, with(busy, 0.95, 1), 10, 50, 200},
		{"a single server is", Shedding{}, busy, 10, 50, 200},
		{"others are just below, for they shed", Shedding{}, with(busy, 0.87), 10, 50, 200},
		{"one is idle: the leader moves users", Shedding{}, with(busy, 0.95, 0.1), 55, 0, 0},
		{"one says that it is idle, and nobody moves users", Shedding{}, with(busy, 0.95, 0.1), 70, 50, 200},
		{"nobody is heard", Shedding{}, alone, 55, 0, 0},
		{"nobody is heard for long", Shedding{}, alone, 70, 50, 200},
		{"others say that they are full", Shedding{}, with(idle, 1, 1000), 600, 0, 0},
		{"between threshold and hysteresis", half, with(Overload{Threshold: 0.9, Own: 0.87}, 0.88), 600, 512, 512},
		{"little to do", half, with(idle, 0.3), 10, 0, 400},
		{"little to do for long", half, with(idle, 0.3), 60, 0, 0},
		{"never", half, Overload{Own: 5}, 1, 0, 0},
		{"absurdly much", Shedding{}, with(Overload{Threshold: 0.9, Own: 1e15}, 1), 10, 600, 700},
		{"for ever", Shedding{}, busy, 100000, 1000, 1024},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := after(tt.seconds, tt.from, tt.o)
			if got := s.Share(); got < tt.low || got > tt.hig {
				t.Errorf("refuses %d of 1024, want %d to %d", got, tt.low, tt.hig)
			}
		})
	}
}

// TestSheddingIsPatientOnce: who has waited for a minute does not begin to wait again while it sheds, though its load falls below
// the threshold by that.
func TestSheddingIsPatientOnce(t *testing.T) {
	busy := Overload{Threshold: 0.9, Own: 1, Others: []float64{0.1}}
	s := after(100, Shedding{}, busy)
	less := busy
	less.Own = 0.5
	before := after(3, s, less)
	if again := before.Next(time.Second, busy); before.Share() == 0 || again.Refused <= before.Refused {
		t.Errorf("refused %.3f, and %.3f when there was too much to do again", before.Refused, again.Refused)
	}
}
