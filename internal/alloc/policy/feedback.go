package policy

import (
	"math"
	"slices"
)

// Feedback (policies load and least-connections) moves shares toward equal readings.
//
// Why it does not oscillate. A server's reading is about proportional to its share, so the full correction of server i, in slots, is
// c·(mean/reading - 1), and one decision makes a quarter of it (gain). Let x be the deviation and the reading be a whole decision old: x' = x -
// gain·x_before has the roots of z² - z + gain, which are real up to a gain of 1/4: no overshoot, whatever the smoothing of reports, as long as
// it is shorter than the interval. Readings that grow less than their share (there is work besides) only make the gain smaller; those that grow
// more, near saturation, are bounded by step. Rounding adds nothing: a whole slot moves only where the full correction is a slot at least,
// so that a correction that comes once too often ends within a slot on the other side, where nothing moves back. Hysteresis keeps noise out,
// if it is three standard deviations of a reading: who is within the band gives or takes only for those who are not, and never more than half a
// slot, or half a band, past the mean.
//
// Why nobody gains by lying. A reading counts as at most four times, and at least a quarter of the median; a decision moves at most step;
// and a server's share stays within 1/range and range times what its weight gives it, whatever it and all others say.
const (
	gain  = 0.25
	trust = 4.0 // readings count within 1/trust and trust times the median
)

// reading is what a policy goes by, per server of the pool.
type reading struct {
	said  []float64 // NaN: unknown
	load  []float64 // the same, as it counts: who says nothing is at the median
	band  []float64 // how far from the mean is near enough
	mean  float64   // of those who can give and take
	least float64   // the lowest reading that counts

	noise func(mean float64, i int) float64 // how wide the band is at least
	text  func(mean float64, i int) string  // why a server with this reading gives or takes
}

// feedback makes one decision by what read says, if one is due.
func (p *pool) feedback(read func() reading) {
	if !p.carry() {
		return
	}
	r := read()
	if !p.in.Due || !r.complete() {
		p.keepSplits()
		return
	}
	p.aim(&r)
	p.split(&r)
	p.correct(r)
}

// complete makes readings count; false: nobody said anything.
func (r *reading) complete() bool {
	var known []float64
	for _, f := range r.said {
		if !math.IsNaN(f) {
			known = append(known, max(f, r.least))
		}
	}
	if len(known) == 0 {
		return false
	}
	slices.Sort(known)
	median := math.Sqrt(known[(len(known)-1)/2] * known[len(known)/2])
	r.load = make([]float64, len(r.said))
	for i, f := range r.said {
		r.load[i] = median
		if !math.IsNaN(f) {
			r.load[i] = min(max(f, median/trust, r.least), median*trust)
		}
	}
	return true
}

// aim finds the mean that all are to come to. Whoever is above it and can give nothing more, or below and can take nothing more, has no
// part in it: the others come to theirs.
func (p *pool) aim(r *reading) {
	isStuck := make([]bool, len(r.load))
	for again := true; again; {
		sum, n := 0.0, 0
		for i, f := range r.load {
			if !isStuck[i] {
				sum, n = sum+f, n+1
			}
		}
		if n == 0 {
			break // everybody is at a bound: there is nothing to come to
		}
		r.mean, again = sum/float64(n), false
		for i, f := range r.load {
			low, high := p.bounds(i)
			if !isStuck[i] && (f > r.mean && p.count[i] <= low || f < r.mean && p.count[i] >= high) {
				isStuck[i], again = true, true
			}
		}
	}
	r.band = make([]float64, len(r.load))
	for i := range r.band {
		r.band[i] = max(p.in.Rules.Balance.Hysteresis*r.mean, r.noise(r.mean, i))
	}
}

// correct moves slots from those above the band, and to those below it.
func (p *pool) correct(r reading) {
	gives, takes := p.corrections(r)
	lend(gives, takes)
	lend(takes, gives)
	n := min(total(gives), total(takes), max(1, int(p.in.Rules.Balance.Step*float64(p.slots))))
	give, take := scale(gives, n), scale(takes, n)
	for i := range p.count {
		if d := take[i] - give[i]; d != 0 {
			p.count[i] += d
			p.say(i, r.text(r.mean, i))
		}
	}
}

// side is what a server may give or take: due is what the decision wants of it, most what it can without passing the mean.
type side struct{ due, most int }

func (p *pool) corrections(r reading) (gives, takes []side) {
	gives, takes = make([]side, len(p.names)), make([]side, len(p.names))
	for i, c := range p.count {
		low, high := p.bounds(i)
		full := float64(c) * (r.mean/r.load[i] - 1)
		isOut := math.Abs(r.load[i]-r.mean) > r.band[i]
		isFine := float64(c)*r.band[i] >= 2*r.mean // a slot is at most half a band
		switch {
		case c > high:
			gives[i] = side{c - high, c - high}
		case c < low:
			takes[i] = side{low - c, low - c}
		case full < 0:
			gives[i] = sideOf(-full, isOut, isFine, c-low)
		default:
			takes[i] = sideOf(full, isOut, isFine, high-c)
		}
	}
	return gives, takes
}

func sideOf(full float64, isOut, isFine bool, room int) side {
	s := side{most: min(int(math.Round(full)), room)}
	if isFine {
		s.most = min(int(math.Ceil(full)), room)
	}
	if isOut {
		s.due = min(max(int(gain*full), min(1, int(full))), room)
	}
	return s
}

// bounds are the fewest and the most slots that a server may have.
func (p *pool) bounds(i int) (low, high int) {
	by := p.share(i) * float64(p.slots)
	rng := p.in.Rules.Balance.Range
	return max(1, int(by/rng)), min(p.slots, int(math.Ceil(by*rng)))
}

// lend makes the others of one side help where the other side is due for more.
func lend(from, to []side) {
	missing := total(from) - total(to)
	if missing <= 0 {
		return
	}
	rooms := make([]side, len(to))
	for i, s := range to {
		rooms[i].due = s.most - s.due
	}
	for i, n := range scale(rooms, min(missing, total(rooms))) {
		to[i].due += n
	}
}

func total(sides []side) int {
	n := 0
	for _, s := range sides {
		n += s.due
	}
	return n
}

// scale cuts what is due down to n in all; nobody is due for more than before.
func scale(sides []side, n int) []int {
	parts := make([]float64, len(sides))
	for i, s := range sides {
		parts[i] = float64(s.due)
	}
	return apportion(n, parts)
}
