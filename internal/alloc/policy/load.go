package policy

import (
	"fmt"
	"math"

	"github.com/manycast/manycast/internal/alloc"
)

const (
	maxLoad   = 4    // whatever an application says
	leastLoad = 0.01 // whoever does nothing
	idle      = 0.2  // a mean below this counts as this for the band: who does next to nothing need not do it evenly
	burst     = 10   // connections that may wait anywhere without being load
	calm      = 3    // times Hysteresis, which the band is at most for few users' sake
)

// loads reads loads, from 0 up; 1 is as much as a server can bear. The load of n users who come and go by chance, and of whom some do much more than
// others, has a standard deviation of some sqrt(2/n): to follow that would move users to and fro all day (docs/simulation.md). So the band
// of a server with few connections is three of these, up to calm times Hysteresis.
func (p *pool) loads() reading {
	r := reading{least: leastLoad}
	for _, name := range p.names {
		l, ok := p.in.Loads[name]
		r.said = append(r.said, measure(l, ok))
	}
	r.noise = func(mean float64, i int) float64 {
		h, l := p.in.Rules.Balance.Hysteresis, p.in.Loads[p.names[i]]
		if l.Connections <= 0 {
			return h * idle // nothing is known of its users
		}
		n := float64(l.Connections) + number(l.Accepts, math.MaxFloat64)
		return max(h*idle, mean*min(3*math.Sqrt(2/n), calm*h))
	}
	r.text = func(mean float64, i int) string {
		if math.IsNaN(r.said[i]) {
			return fmt.Sprintf("does not say its load, mean %.2f", mean)
		}
		return fmt.Sprintf("is at %.2f, mean %.2f", r.said[i], mean)
	}
	return r
}

// Measure is a server's load as policy load and shedding see it: the application's own word where it gives one, else the highest of CPU, memory
// pressure and queue, where as many waiting connections as are accepted in a second, and ten, are 1. 0 to 4; NaN: the server says nothing.
func Measure(l alloc.Load) float64 { return measure(l, true) }

func measure(l alloc.Load, known bool) float64 {
	switch {
	case !known || isSilent(l):
		return math.NaN()
	case l.Application != nil && !math.IsNaN(*l.Application):
		return number(*l.Application, maxLoad)
	}
	queue := float64(max(l.Queue, 0)) / (number(l.Accepts, math.MaxFloat64) + burst)
	return max(number(l.CPU, 1), number(l.Memory, 1), min(queue, 1))
}

// isSilent reports whether l is the zero Load.
func isSilent(l alloc.Load) bool {
	return l.Connections == 0 && l.Accepts == 0 && l.Bytes == 0 && l.CPU == 0 && l.Memory == 0 && l.Application == nil && l.Queue == 0
}

// number takes any value to 0..most.
func number(f, most float64) float64 {
	if !(f > 0) { // NaN too
		return 0
	}
	return min(f, most)
}
