package service

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/fastpath"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/neighbors"
	"github.com/manycast/manycast/tdpd/internal/steering"
)

// pool is a binding of so many servers, every slot with an owner and a standby at random.
func pool(servers, bits int) steering.Binding {
	r := rand.New(rand.NewPCG(1, 2))
	a := alloc.Allocation{Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: alloc.Slots{By: alloc.Suffix, Bits: bits}}
	for i := range servers {
		a.Servers = append(a.Servers, fmt.Sprintf("s%04d", i))
		a.Addresses = append(a.Addresses, netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}))
	}
	for range a.Cells() {
		o := r.IntN(servers)
		a.Owner, a.Standby = append(a.Owner, uint16(o)), append(a.Standby, uint16((o+1+r.IntN(servers-1))%servers))
	}
	return steering.Binding{Service: "web", VIPs: []netip.Addr{addr("192.0.2.80")}, Sequence: 1, Allocation: a, Lifetime: time.Hour}
}

// silenced is a Control without a channel behind it.
type silenced struct{}

func (silenced) Listen(func(control.Event)) (stop func()) { return func() {} }
func (silenced) Members() []control.Member                { return nil }
func (silenced) Silence() time.Duration                   { return 250 * time.Millisecond }

// BenchmarkNetSilentServer is how long it takes from the news that a server of 1,000 is silent, or is back, until the fast path steers by
// it: 65,536 slots, 100,000 labels beside them. Beside it a binding of a new epoch.
func BenchmarkNetSilentServer(b *testing.B) {
	const servers, labels = 1000, 100_000
	f, err := fastpath.Open(fastpath.Options{})
	if err != nil {
		b.Fatal(err)
	}
	n, log := neighbors.NewFake(), slog.New(slog.DiscardHandler)
	backend, err := fastpath.NewBackend(kernel.NewFake(kernel.State{}), f, n, nil, 0, log)
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close(false)
	mac, via := net.HardwareAddr{2, 0, 0, 0, 0, 1}, addr("10.0.12.2")
	n.Send(neighbors.Table{
		Links:     map[int]neighbors.Link{7: {Name: "a", MAC: mac, MTU: 1500, Up: true}},
		Neighbors: map[neighbors.Key]net.HardwareAddr{{Interface: 7, Address: via}: mac},
	})
	state := kernel.State{Labels: map[uint32][]kernel.Hop{}}
	for i := range uint32(labels) {
		state.Labels[1000+i] = []kernel.Hop{{Labels: []uint32{1000 + i}, Via: via, Interface: 7}}
	}
	if err := backend.Set(state); err != nil {
		b.Fatal(err)
	}
	cfg := config.Default()
	cfg.RouterID = addr("1.1.1.1")
	s, err := New(Options{Config: cfg, Steer: backend.Steer, Control: silenced{}, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	s.kernel.synced = true
	s.openControl(time.Now())
	binding := pool(servers, 16)
	var binds, fails time.Duration
	took := func(to *time.Duration, f func()) {
		began := time.Now()
		f()
		s.bringUsers(began)
		*to += time.Since(began)
		if s.users.dirty {
			b.Fatal("not brought in")
		}
	}
	for i := 0; b.Loop(); i++ {
		binding.Sequence++
		binding.Allocation.Epoch.Number++
		took(&binds, func() {
			if err := s.Bind(time.Now(), binding); err != nil {
				b.Fatal(err)
			}
		})
		m := control.Member{Name: binding.Allocation.Servers[i%servers], Role: control.Server, Address: binding.Allocation.Addresses[i%servers]}
		for _, m.Health = range []control.Health{control.Silent, control.Available} {
			time.Sleep(20 * time.Millisecond) // what was in force before is cleaned up, as at any other time
			took(&fails, func() {
				s.control.mail.Put(control.Changed{Member: m})
				s.heard(time.Now())
			})
		}
	}
	ms := func(d time.Duration, n int) float64 { return d.Seconds() * 1000 / float64(n) }
	b.ReportMetric(ms(fails, 2*b.N), "ms/failure")
	b.ReportMetric(ms(binds, b.N), "ms/epoch")
	b.ReportMetric(0, "ns/op")
}
