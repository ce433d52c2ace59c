package mover

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/client"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/serving"
	dynwire "github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

var (
	dynamicKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	published  = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("2001:db8::/48")}
)

// dynamicRig is a rig whose servers' connections say where they live, and whose user's host has what lbd client has.
type dynamicRig struct {
	*rig
	loops  map[string]*serving.Loop
	client *hearing
}

// newDynamicRig has no applications.
func newDynamicRig(t testing.TB, at netip.AddrPort) *dynamicRig {
	n := testnet.New(t)
	d := &dynamicRig{loops: map[string]*serving.Loop{}}
	d.rig = newRigBeside(t, n, at, nil, func(name string, s *rigServer) Sockets {
		d.loops[name] = startServing(t, s, name, filepath.Join(n.BPFFS(), name, "dyntcp"))
		return d.loops[name].Sockets(socketsIn{s})
	})
	err := d.user.Do(func() error {
		plane, err := kernel.OpenClient(kernel.Config{Interfaces: []string{"eth0"}, Bpffs: filepath.Join(n.BPFFS(), "user")})
		d.client = &hearing{Client: plane, changes: make(chan kernel.Change)}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	go d.client.hear()
	loop := client.New(client.Config{
		Services: []client.Service{{Name: "web", VIP: front}, {Name: "web", VIP: front6}}, Plane: d.client, Source: keySource{}, TTLMax: time.Hour, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-loop.Ready()
	return d
}

// keySource has the service's key.
type keySource struct{}

func (keySource) Fetch(_ context.Context, vip netip.Addr) (record.Record, time.Duration, error) {
	return record.Record{
		Address: vip, Keys: []record.Key{record.NewKey(dynamicKey.Public().(ed25519.PublicKey))}, Destinations: published,
	}, time.Hour, nil
}

// hearing is a user's side that can be made deaf: what passes then is lost.
type hearing struct {
	kernel.Client
	deaf    atomic.Bool
	changes chan kernel.Change
}

func (h *hearing) hear() {
	defer close(h.changes)
	for c := range h.Client.Changes() {
		if !h.deaf.Load() {
			h.changes <- c
		}
	}
}

// Changes implements kernel.Client.
func (h *hearing) Changes() <-chan kernel.Change { return h.changes }

// startServing runs a server's part, and waits for its programs.
func startServing(t testing.TB, s *rigServer, name, bpffs string) *serving.Loop {
	t.Helper()
	addresses := []netip.Addr{netip.MustParseAddr(rigAddress(name)), netip.MustParseAddr(rigAddress6(name))}
	sockets := map[bool]*net.UDPConn{} // those of IPv4 by true
	for _, a := range addresses {
		s.do(t, func() (err error) {
			sockets[a.Is4()], err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
			return err
		})
		t.Cleanup(func() { _ = sockets[a.Is4()].Close() })
	}
	loop := serving.New(serving.Config{
		Addresses: addresses, FlowOf: kernel.FlowOf, Knows: func(f kernel.Flow) (bool, error) { return gatesIn{s.plane, s}.Knows(f) }, Log: slog.New(slog.DiscardHandler),
		Connected: func(context.Context, []netip.Addr, []service.Port) ([]netip.AddrPort, error) { return nil, nil }, // nobody was here before
		Open: func() (server kernel.Server, err error) {
			err = s.node.Do(func() error {
				server, err = kernel.OpenServer(kernel.Config{Interfaces: []string{"eth0"}, Bpffs: bpffs})
				return err
			})
			return server, err
		},
		Sign: func(c dynwire.Change) (dynwire.Signed, error) {
			c.KeyID = record.NewKey(dynamicKey.Public().(ed25519.PublicKey)).ID
			return dynwire.Sign(c, dynamicKey)
		},
		Send: func(user netip.Addr, message []byte) error {
			_, err := sockets[user.Is4()].WriteToUDPAddrPort(message, netip.AddrPortFrom(user, dynwire.Port))
			return err
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	dynamic := web
	dynamic.VIP6 = front6.Addr()
	dynamic.Dynamic = service.Dynamic{On: true}
	loop.Set([]service.Service{dynamic})
	testnet.Eventually(t, 10*time.Second, loop.Open, "programs are there")
	return loop
}

// TestNetDynamicConnectionsAreFollowed moves live connections, whose user's host is told by the server that takes them and sends to it from then on.
func TestNetDynamicConnectionsAreFollowed(t *testing.T) {
	for name, at := range map[string]netip.AddrPort{"IPv4": front, "IPv6": front6} {
		t.Run(name, func(t *testing.T) { followConnections(t, at) })
	}
}

func followConnections(t *testing.T, front netip.AddrPort) {
	d := newDynamicRig(t, front)
	d.serve()
	var all []*numbers
	for range 4 {
		all = append(all, d.numbers())
	}
	at := func(server string, moves uint32) func() bool {
		return func() bool { return d.liveAt(server, moves, len(all)) }
	}
	goOn := func() {
		t.Helper()
		goOn(t, all, 400)
	}
	if front.Addr().Is4() { // of IPv6 no SYN-ACK says so
		testnet.Eventually(t, 10*time.Second, at("s1", 0), "connections say that they live at s1")
	}
	goOn()
	for i := range 6 {
		to := []string{"s2", "s1"}[i%2]
		d.commit(to)
		testnet.Eventually(t, 20*time.Second, at(to, uint32(i+1)), "the user's host follows to "+to)
		goOn()
	}
	first := d.loops["s2"].Counters()
	if first.Moves != uint64(3*len(all)) || first.Unsigned+first.Unsent > 0 {
		t.Errorf("s2 counts %+v", first)
	}
	for name, s := range d.servers {
		if c := s.Counters(); len(c.Stayed)+len(c.Lost)+len(c.NotTaken) > 0 {
			t.Errorf("%s counts %+v", name, c)
		}
	}
}

// TestNetUserWhoDoesNotHearIsServed: what comes to where a connection was goes to where it is, also when the giver's gate is open again, and no message
// is too late while they are said.
func TestNetUserWhoDoesNotHearIsServed(t *testing.T) {
	d := newDynamicRig(t, front)
	d.serve()
	all := []*numbers{d.numbers(), d.numbers()}
	testnet.Eventually(t, 10*time.Second, func() bool { return d.liveAt("s1", 0, len(all)) }, "connections say that they live at s1")
	d.client.deaf.Store(true)
	began := time.Now()
	d.commit("s2")
	testnet.Eventually(t, 10*time.Second, func() bool { return d.servers["s1"].Counters().Given == uint64(len(all)) }, "all are given")
	testnet.Eventually(t, 10*time.Second, func() bool {
		goOn(t, all, 40)
		return time.Since(began) > 3*passFor
	}, "streams go on")
	if !d.liveAt("s1", 0, len(all)) {
		t.Error("the user has heard")
	}
	d.client.deaf.Store(false)
	testnet.Eventually(t, 10*time.Second, func() bool { return d.liveAt("s2", 1, len(all)) }, "the user's host follows")
	goOn(t, all, 400)
}

// liveAt reports whether all n connections live at a server's own address after so many moves, as the user's host sees it.
func (d *dynamicRig) liveAt(server string, moves uint32, n int) bool {
	connections, err := d.client.Connections()
	if err != nil || len(connections) != n {
		return false
	}
	for _, c := range connections {
		if c.Destination != d.placeOf(server) || c.Moves < moves || (c.Sequence > 0) != (moves > 0) {
			return false
		}
	}
	return true
}

// placeOf is where a server's connections live.
func (d *dynamicRig) placeOf(server string) netip.AddrPort {
	address := rigAddress(server)
	if d.front.Addr().Is6() {
		address = rigAddress6(server)
	}
	return netip.AddrPortFrom(netip.MustParseAddr(address), d.front.Port())
}

// goOn waits until each stream has so many bytes more.
func goOn(t *testing.T, all []*numbers, more uint64) {
	t.Helper()
	for _, n := range all {
		got := n.got.Load()
		testnet.Eventually(t, 10*time.Second, func() bool { n.check(t); return n.got.Load() > got+more }, "a stream goes on")
	}
}

// BenchmarkNetDynamic is BenchmarkNetTransfer of a connection whose user's host follows it.
func BenchmarkNetDynamic(b *testing.B) {
	d := newDynamicRig(b, front)
	d.serveApart("paced")
	n := d.farNumbers()
	testnet.Eventually(b, 10*time.Second, func() bool { return d.liveAt("s1", 0, 1) }, "it lives at s1")
	moves := uint32(0)
	measureBlackouts(b, d.rig, n, func(to string) {
		moves++
		testnet.Eventually(b, 5*time.Second, func() bool { return d.liveAt(to, moves, 1) }, "the user's host follows")
	})
}
