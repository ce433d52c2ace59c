package fastpath

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/neighbors"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// What the programs tell of is passed on with the addresses that its sender has on that link, and a Backend ends while it waits for more.
func TestBackendFindsSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fast, n := &recorder{on: map[int]Side{}}, neighbors.NewFake()
		b, err := NewBackend(kernel.NewFake(kernel.State{}), fast, n, nil, 0, slog.New(slog.NewTextHandler(t.Output(), nil)))
		if err != nil {
			t.Fatal(err)
		}
		table := known(map[netip.Addr]net.HardwareAddr{via4: next, via6: next}, eth0)
		table.Neighbors[neighbors.Key{Interface: 8, Address: self4}] = next
		n.Send(table)
		synctest.Wait()
		user := netip.MustParseAddr("10.1.0.12")
		fast.tells <- []Tagless{{vip4, user, 7, next}, {vip4, user, 8, next}, {vip4, user, 7, here}}
		want := []vips.Tagless{
			{VIP: vip4, User: user, Interface: 7, From: []netip.Addr{via4, via6}}, {VIP: vip4, User: user, Interface: 8, From: []netip.Addr{self4}},
			{VIP: vip4, User: user, Interface: 7},
		}
		if diff := cmp.Diff(want, <-b.Tagless(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if err := b.Close(false); err != nil {
			t.Error(err)
		}
	})
}
