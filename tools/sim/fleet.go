package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/manycast/manycast/internal/alloc"
)

// fleet is the servers, and what happens to them in the course of the day.
type fleet struct {
	servers  []alloc.Server
	capacity []float64 // traffic that is a load of 1
	down     [][]int   // per minute, those that are out
}

const (
	peakLoad   = 0.6 // of all servers together, at the day's peak
	misjudged  = 0.2 // a server's capacity is within that of what its weight says
	flapping   = 200 // one server in so many
	rackPart   = 20  // one server in so many is in the rack that fails
	diesWithin = 30  // one server in so many dies some time of the day
)

func newFleet(r *rand.Rand, count int, peak float64) *fleet {
	f := &fleet{capacity: make([]float64, count), down: make([][]int, steps)}
	whole := 0.0
	for i := range count {
		weight := 10
		if i%4 == 3 {
			weight = 20
		}
		f.capacity[i] = float64(weight) * (1 + misjudged*(2*r.Float64()-1))
		whole += f.capacity[i]
		f.servers = append(f.servers, alloc.Server{
			Name: fmt.Sprintf("s%04d", i+1), Weight: weight, Alive: true, Address: netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)}),
		})
	}
	for i := range f.capacity {
		f.capacity[i] *= peak / peakLoad / whole
	}
	out := func(server, from, to int) {
		for m := from; m < min(to, steps); m++ {
			f.down[m] = append(f.down[m], server)
		}
	}
	order := r.Perm(count)
	for range max(1, count/flapping) {
		for m := flapFrom; m < flapTo; m += 2 {
			out(order[0], m, m+1)
		}
		order = order[1:]
	}
	for range max(1, count/diesWithin) {
		from := r.IntN(steps)
		out(order[0], from, from+1+int(30*r.ExpFloat64()))
		order = order[1:]
	}
	for range max(1, count/rackPart) {
		out(order[0], rackFrom, rackTo)
		order = order[1:]
	}
	return f
}

// at sets who is alive, and says whether that has changed.
func (f *fleet) at(minute int) (changed bool) {
	alive := make([]bool, len(f.servers))
	for i := range alive {
		alive[i] = true
	}
	for _, i := range f.down[minute] {
		alive[i] = false
	}
	for i := range f.servers {
		changed = changed || f.servers[i].Alive != alive[i]
		f.servers[i].Alive = alive[i]
	}
	return changed
}
