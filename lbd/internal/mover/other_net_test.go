package mover

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/handover"
	"github.com/manycast/manycast/lbd/internal/repair"
)

// forging sends other states than it has offered.
type forging struct {
	Sockets
	change func(*repair.State)
}

func (f forging) Freeze(fd int) (Socket, []byte, error) {
	socket, state, err := f.Sockets.Freeze(fd)
	if err != nil {
		return nil, nil, err
	}
	s, err := repair.Decode(state)
	if err != nil {
		return nil, nil, fmt.Errorf("its own state: %w", err)
	}
	f.change(&s)
	return socket, s.Append(nil), nil
}

// TestNetStateOfAnotherConnection: a server that turns offers a connection that is the taker's, and sends the state of one that is not: of another user, or
// of another port or address of the taker's. It keeps what it has offered.
func TestNetStateOfAnotherConnection(t *testing.T) {
	other := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()^1) }
	for what, change := range map[string]func(*repair.State){
		"another user": func(s *repair.State) { s.Remote = other(s.Remote) },
		"another port": func(s *repair.State) { s.Local = other(s.Local) },
		"another address": func(s *repair.State) {
			s.Local = netip.AddrPortFrom(netip.MustParseAddr(rigAddress("s2")), s.Local.Port())
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRigBeside(t, testnet.New(t), front, nil, func(name string, s *rigServer) Sockets {
				if name == "s1" {
					return forging{socketsIn{s}, change}
				}
				return socketsIn{s}
			})
			r.serve()
			n := r.numbers()
			s1, s2 := r.servers["s1"], r.servers["s2"]
			r.commit("s2")
			testnet.Eventually(t, 5*time.Second, func() bool {
				return s2.Counters().NotTaken[handover.Kernel] == 1 && s1.Counters().Stayed[handover.Kernel] == 1
			}, "s2 refuses it, and s1 has it")
			got := n.got.Load()
			testnet.Eventually(t, 5*time.Second, func() bool { n.check(t); return n.got.Load() > got+800 }, "the stream goes on")
			if c := s2.Counters(); c.Taken > 0 {
				t.Errorf("s2 counts %+v", c)
			}
		})
	}
}
