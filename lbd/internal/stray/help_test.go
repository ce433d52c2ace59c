package stray

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/mover"
)

var (
	front = netip.MustParseAddrPort("192.0.2.80:80")
	start = time.Unix(1000, 0)
)

// views are of the service web, with servers s1 to sn.
func views(n int) []mover.View {
	v := mover.View{Service: service.Service{Name: "web", VIP: front.Addr(), Ports: []service.Port{{Proto: "tcp", Number: 80}}}}
	for i := range n {
		v.Allocation.Servers = append(v.Allocation.Servers, nameOf(i))
	}
	return []mover.View{v}
}

func nameOf(i int) string { return fmt.Sprintf("s%d", i+1) }

func addressOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 3, 0, byte(i + 1)}) }

func member(i int) control.Member {
	return control.Member{Name: nameOf(i), Role: control.Server, Address: addressOf(i), Boot: 1, Health: control.Available}
}

func flowOf(i int) dataplane.Flow {
	return dataplane.Flow{User: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 4711), VIP: front}
}

// frameOf is a packet of a flow with these flags of TCP.
func frameOf(f dataplane.Flow, flags byte) []byte {
	user, vip := f.User.Addr().AsSlice(), f.VIP.Addr().AsSlice()
	b := make([]byte, ethernet, 128)
	if f.User.Addr().Is4() {
		b[12], b[13] = 0x08, 0
		b = append(b, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, tcp, 0, 0)
	} else {
		b[12], b[13] = 0x86, 0xdd
		b = append(b, 0x60, 0, 0, 0, 0, 20, tcp, 64)
	}
	b = append(append(b, user...), vip...)
	b = binary.BigEndian.AppendUint16(b, f.User.Port())
	b = binary.BigEndian.AppendUint16(b, f.VIP.Port())
	b = append(b, make([]byte, 16)...)
	b[len(b)-7] = flags
	return b
}

func strayOf(i int) dataplane.Stray {
	return dataplane.Stray{Flow: flowOf(i), Frame: frameOf(flowOf(i), ack)}
}

func work() control.Member {
	m := member(8)
	m.Loads = map[string]alloc.Load{"web": {}}
	return m
}
