package main

import (
	"math"
	"slices"

	"github.com/manycast/manycast/internal/alloc"
)

func sqrt(f float64) float64 { return math.Sqrt(f) }

// turnLeast is how far a server's share has to go back before that is a turn, part of the share.
const turnLeast = 0.1

// measures is what is found out in the course of a run.
type measures struct {
	highest, most, spread, mean []float64 // per minute: load max/mean, p99/mean, standard deviation/mean, mean
	move                        []float64 // per minute, part of the active users
	epochs                      int
	space, needed               float64 // parts of the space that moved, and had to
	followed                    float64 // parts of the space that moved by reports
	users                       float64 // parts of the active users

	peaks []peak // per server
}

// peak follows a server's share: a turn is where it comes back by a tenth of itself.
type peak struct {
	extreme float64
	way     int // 1 up, -1 down, 0 not known yet
	turns   int
}

func newMeasures(servers int) *measures { return &measures{peaks: make([]peak, servers)} }

// minute notes the loads of those that are there.
func (m *measures) minute(f *fleet, traffic []float64) {
	var loads []float64
	sum := 0.0
	whole, capacity := 0.0, 0.0
	for i, s := range f.servers {
		if s.Alive {
			load := traffic[i] / f.capacity[i]
			loads = append(loads, load)
			sum += load
			whole, capacity = whole+traffic[i], capacity+f.capacity[i]
		}
	}
	slices.Sort(loads)
	mean := sum / float64(len(loads))
	variance := 0.0
	for _, l := range loads {
		variance += (l - mean) * (l - mean) / float64(len(loads))
	}
	m.highest = append(m.highest, loads[len(loads)-1]/mean)
	m.most = append(m.most, loads[len(loads)*99/100]/mean)
	m.spread = append(m.spread, sqrt(variance)/mean)
	m.mean = append(m.mean, whole/capacity)
	m.move = append(m.move, 0)
}

// moved notes an epoch.
func (m *measures) moved(move alloc.Move, users, all float64, byReports bool) {
	m.epochs++
	m.space += move.FractionMoved()
	m.needed += move.FractionNeeded()
	if byReports {
		m.followed += move.FractionMoved()
	}
	m.users += users / all
	if n := len(m.move); n > 0 {
		m.move[n-1] += users / all
	}
}

// changed follows everybody's share. Whoever was out begins anew.
func (m *measures) changed(f *fleet, slots []int) {
	for i := range m.peaks {
		p := &m.peaks[i]
		if !f.servers[i].Alive {
			p.extreme, p.way = 0, 0
			continue
		}
		if p.extreme == 0 {
			p.extreme = float64(slots[i])
		}
		p.follow(float64(slots[i]))
	}
}

func (p *peak) follow(share float64) {
	least := max(turnLeast*max(share, p.extreme), 2)
	switch way := float64(p.way); {
	case p.way == 0 && math.Abs(share-p.extreme) >= least:
		p.way = 1
		if share < p.extreme {
			p.way = -1
		}
		p.extreme = share
	case way*(share-p.extreme) > 0:
		p.extreme = share
	case way*(p.extreme-share) >= least:
		p.way, p.extreme = -p.way, share
		p.turns++
	}
}

// turns are those of all servers.
func (m *measures) turns() (all, most int) {
	for _, p := range m.peaks {
		all += p.turns
		most = max(most, p.turns)
	}
	return all, most
}

// settled is how many minutes after an event the spread of loads stays within a tenth of what it was in the hour before, or within a
// hundredth of the mean of that; -1: it does not within the time that is looked at.
func (m *measures) settled(at, within int) int {
	before := 0.0
	for _, s := range m.spread[at-60 : at] {
		before += s / 60
	}
	end := min(at+within, len(m.spread))
	for t := end - 1; t >= at; t-- {
		if m.spread[t] > before*1.1+0.01 {
			if t == end-1 {
				return -1
			}
			return t + 1 - at
		}
	}
	return 0
}

func average(s []float64) float64 {
	sum := 0.0
	for _, v := range s {
		sum += v
	}
	return sum / float64(len(s))
}

// quantile of s.
func quantile(s []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
