package cmdtest

import (
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
)

// Web is a service of 16 slots.
const Web = "name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80, tcp/443]\npolicy: weighted\nslots: suffix/4\n"

// World is a bus with the service web, its servers s1 (weight 2), s2 and s3, director d1, and allocation 5.1.
func World(b *Bus) alloc.Allocation {
	b.t.Helper()
	b.Service(Web)
	b.Register("web", "s1", "10.0.1.1", 2, true)
	b.Register("web", "s2", "10.0.2.1", 1, true)
	b.Register("web", "s3", "10.0.3.1", 1, true)
	b.Lead("d1")
	a := b.Next(alloc.Allocation{}, 1, Alive("s1", 2), Alive("s2", 1), Alive("s3", 1))
	b.Allocate("web", a, alloc.Allocation{})
	return a
}

// Alive is a server in good health.
func Alive(name string, weight int) alloc.Server {
	return alloc.Server{Name: name, Weight: weight, Alive: true}
}

// Next is the leader's next allocation of web, epoch 5.number.
func (b *Bus) Next(prev alloc.Allocation, number uint64, servers ...alloc.Server) alloc.Allocation {
	b.t.Helper()
	next, _, err := alloc.Next(prev, alloc.Want{
		Epoch: epoch.Epoch{Term: 5, Number: number}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 4}, Servers: servers,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return next
}
