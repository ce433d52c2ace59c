package service

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/igmpd/internal/config"
	"github.com/manycast/manycast/igmpd/internal/kernel"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/record"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

var (
	private   = netip.MustParseAddr("239.80.80.80")
	public    = netip.MustParseAddr("225.1.1.1")
	lanOwn    = netip.MustParseAddr("10.3.0.1")
	upOwn     = netip.MustParseAddr("10.2.0.2")
	upRouter  = netip.MustParseAddr("10.2.0.1")
	server    = netip.MustParseAddr("10.3.0.11")
	other     = netip.MustParseAddr("10.3.0.12")
	downRoute = netip.MustParseAddr("10.3.0.2") // a router of ours behind lan
	lan       = netip.MustParsePrefix("10.3.0.0/24")
	groupKey  = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
)

// sent is a message that the router sent.
type sent struct {
	port string
	to   netip.Addr
	msg  igmp.Message
}

// fakeNetwork is a router with the member port lan and the port up toward the root.
type fakeNetwork struct {
	packets chan Packet
	changed chan struct{}

	mu    sync.Mutex
	ports []PortState
	err   error // of Ports
	out   []sent
	root  string // the port toward the roots; empty: up
}

func newFakeNetwork() *fakeNetwork {
	return &fakeNetwork{
		packets: make(chan Packet, 1024), changed: make(chan struct{}, 1),
		ports: []PortState{
			{Name: "lan", Index: 2, Up: true, Address: lanOwn, Prefixes: []netip.Prefix{lan}, MTU: 1500},
			{Name: "up", Index: 3, Up: true, Address: upOwn, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}, MTU: 1500},
		},
	}
}

func (n *fakeNetwork) Packets() <-chan Packet   { return n.packets }
func (n *fakeNetwork) Changed() <-chan struct{} { return n.changed }
func (n *fakeNetwork) Close() error             { return nil }

func (n *fakeNetwork) Ports() ([]PortState, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return nil, n.err
	}
	return append([]PortState(nil), n.ports...), nil
}

func (n *fakeNetwork) Route(a netip.Addr) (Hop, bool) {
	switch {
	case a == lanOwn || a == upOwn:
		return Hop{"lo", true}, true
	case lan.Contains(a):
		return Hop{"lan", false}, true
	case netip.MustParsePrefix("10.4.0.0/24").Contains(a): // behind downRoute
		return Hop{"lan", false}, true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.root != "" {
		return Hop{n.root, false}, true
	}
	return Hop{"up", false}, true
}

// reroute moves the way to the roots to another port.
func (n *fakeNetwork) reroute(port string) {
	n.mu.Lock()
	n.root = port
	n.mu.Unlock()
	n.changed <- struct{}{}
	synctest.Wait()
}

func (n *fakeNetwork) Send(port string, to netip.Addr, payload []byte) error {
	msg, err := igmp.Parse(payload)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.out = append(n.out, sent{port, to, msg})
	return nil
}

// take returns what was sent since the last call.
func (n *fakeNetwork) take() []sent {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.out
	n.out = nil
	return out
}

type fakeKeys struct {
	mu     sync.Mutex
	record record.Record
	err    error
	asked  int
}

func (k *fakeKeys) Fetch(context.Context, netip.Addr) (record.Record, time.Duration, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	return k.record, time.Hour, k.err
}

func (k *fakeKeys) set(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

func testConfig(dir string) config.Config {
	c := config.Default()
	c.StateDir, c.Name = dir, "r2"
	c.Roots = []netip.Addr{netip.MustParseAddr("10.1.0.1")}
	c.Interfaces = []config.Interface{
		{Name: "lan", Members: true, Neighbors: []netip.Addr{downRoute}},
		{Name: "up", Neighbors: []netip.Addr{upRouter}},
	}
	return c
}

// router is a Service in a bubble with everything around it faked.
type router struct {
	t       *testing.T
	net     *fakeNetwork
	keys    *fakeKeys
	fwd     *kernel.Fake
	service *Service
	stop    func()
}

func groupRecord() record.Record {
	return record.Record{
		Name: "shop.example.net.", Address: private, Owner: "ops@example.net", Private: true,
		Keys: []record.Key{record.NewKey(groupKey.Public().(ed25519.PublicKey))},
	}
}

func startRouter(t *testing.T, dir string, change func(*Options)) *router {
	t.Helper()
	r := &router{t: t, net: newFakeNetwork(), keys: &fakeKeys{record: groupRecord()}, fwd: &kernel.Fake{}}
	o := Options{
		Config: testConfig(dir), Network: r.net, Forwarder: r.fwd, Keys: r.keys, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), BootID: "boot",
	}
	if change != nil {
		change(&o)
	}
	var err error
	if r.service, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.service.Run(ctx) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	synctest.Wait()
	return r
}

func (r *router) status() *igmpdv1.Status {
	r.t.Helper()
	st, err := r.service.Status(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

// receive gives the router a packet and waits until it has dealt with it.
func (r *router) receive(p Packet) {
	p.At = time.Now()
	if !p.Destination.IsValid() {
		p.Destination, p.TTL, p.RouterAlert = allRouters, 1, true
	}
	r.net.packets <- p
	synctest.Wait()
}

func (r *router) receiveMessage(source netip.Addr, m igmp.Message) {
	r.t.Helper()
	payload, err := igmp.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	r.receive(Packet{Port: "lan", Source: source, Payload: payload})
}

// signedJoin makes a join of the epoch 1.number for users with the given last bit.
func signedJoin(t *testing.T, requester netip.Addr, number uint64, users string) join.Signed {
	t.Helper()
	j := join.Join{
		Group: private, Requester: requester, Link: lan, Time: time.Now(), Epoch: epoch.Epoch{Term: 1, Number: number}, Part: 1, Parts: 1,
		Owner: portion.Set{Permit: []portion.Portion{portion.MustParse(users)}}, KeyID: groupRecord().Keys[0].ID,
	}
	rand.Read(j.Random[:])
	s, err := join.Sign(j, groupKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
