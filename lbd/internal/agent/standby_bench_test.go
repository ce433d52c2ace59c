package agent

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
)

// BenchmarkTakeover is what a standby does between the silence of an owner on its link and the order to its data plane, where a
// service has 1,000 servers on 65,536 slots.
func BenchmarkTakeover(b *testing.B) {
	want := alloc.Want{Slots: alloc.Slots{By: alloc.Suffix, Bits: 16}}
	for i := range 1000 {
		want.Servers = append(want.Servers, alloc.Server{
			Name: fmt.Sprintf("s%03d", i), Weight: 1, Alive: true, Address: netip.AddrFrom4([4]byte{10, 3, byte(i >> 8), byte(i)}),
		})
	}
	want.Epoch.Number = 1
	a, _, err := alloc.Next(alloc.Allocation{}, want)
	if err != nil {
		b.Fatal(err)
	}
	c := NewCore("s000", []string{"web"}, netip.MustParsePrefix("10.3.0.0/16"), settle)
	c.Channel(silence, true)
	c.SetServices(start, []service.Service{web})
	c.SetHealthy(start, true)
	c.Committed(start, "web", a)
	owner := ""
	for name := range c.owners("web") {
		owner = name
	}
	c.Heard(start, []control.Member{{Name: "r1", Health: control.Available}, {Name: owner, Health: control.Available}})
	for b.Loop() {
		for _, h := range []control.Health{control.Silent, control.Available} {
			if len(c.Heard(start, []control.Member{{Name: owner, Health: h}})) == 0 {
				b.Fatal("nothing done")
			}
		}
		c.closings = nil
	}
}
