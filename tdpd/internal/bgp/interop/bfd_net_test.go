package interop

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgp/bfd"
	"github.com/manycast/manycast/tdpd/internal/bgp/bfd/bfdd"
	"github.com/manycast/manycast/tdpd/internal/routing"
)

// bfdHold is BGP's hold time where BFD is to be the faster one by far, on a slow machine, too.
const bfdHold = 90 * time.Second

// fast is FRR's configuration of bfdd at its end.
const fast = "log stdout\nbfd\n profile fast\n  transmit-interval 100\n  receive-interval 100\n exit\nexit\n"

// bfdPair is a session with FRR that both ends watch by BFD: ours by a bfdd of its own, in our namespace.
type bfdPair struct {
	*rig
	f, own *frr
	bfdd   *testnet.Process
	seen   *seen
	end    func() // of the loops, as at tdpd's clean stop
}

var told = netip.MustParsePrefix("10.70.0.0/16") // by FRR

func newBFDPair(t *testing.T, restart time.Duration) *bfdPair {
	t.Helper()
	r := newRig(t)
	r.d.Restart.Time = restart
	w := &bfdPair{rig: r, seen: r.watch()}
	w.own = &frr{r: r, node: r.us, dir: filepath.Join("/run/frr", r.us.Name())}
	own(t, w.own.dir)
	t.Cleanup(func() { os.RemoveAll(w.own.dir) })
	w.own.start("zebra", "log stdout\n")
	w.bfdd = w.own.start("bfdd", "log stdout\n")
	w.f = r.frr(frrConfig{
		bfdd: fast, neighbor: []string{"timers 30 90", "bfd", "bfd profile fast"}, global: " no bgp network import-check\n",
		families: family("ipv4 unicast", us4, "network 10.70.0.0/16"),
	})
	n := r.neighbor(bgp.IPv4Unicast)
	n.Hold, n.Keepalive, n.Import = bfdHold, bfdHold/3, "all"
	r.d.Neighbors, r.d.Unicast = []bgp.Neighbor{n}, []bgp.Path{{Prefix: vip4}}
	r.d.Policies = []bgp.Policy{{Name: "all", Rules: []bgp.PolicyRule{{}}}}
	w.run()
	w.up()
	return w
}

// run starts the loops, as tdpd does.
func (w *bfdPair) run() {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w.log, nil))
	interval := 100 * time.Millisecond
	keeper := bfdd.New(filepath.Join(w.own.dir, "bfdd.vty"))
	b := bfd.NewLoop(keeper, []bfd.Neighbor{{
		Session: bfd.Session{Peer: frr4, Transmit: interval, Receive: interval, Multiplier: 3}, Hold: bfdHold,
	}}, log)
	l := routing.New(routing.Options{Speaker: w.client, Base: w.d, Out: b.Out(), Log: log})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- b.Run(ctx) }()
	go func() { ended <- l.Run(ctx) }()
	w.end = sync.OnceFunc(func() {
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				w.t.Error(err)
			}
		}
		if left, err := keeper.States(context.Background()); err != nil || len(left) > 0 {
			w.t.Errorf("left in bfdd: %v, %v", left, err)
		}
	})
	w.t.Cleanup(w.end)
}

func (w *bfdPair) bfdUp() bool {
	return strings.Contains(w.own.daemon("bfdd", "show bfd peers json"), `"status":"up"`)
}

// up waits until all is as it is to be.
func (w *bfdPair) up() {
	w.t.Helper()
	w.established(frr4)
	w.eventually(w.bfdUp, "BFD is up")
	w.eventually(func() bool { return len(w.f.routes("ipv4 unicast", vip4)) == 1 }, "the VIP at FRR")
	w.eventually(func() bool { return w.seen.unicast(told) != nil }, "FRR's prefix")
}

// cut drops what comes to a node by the link, until it is healed.
func cut(t *testing.T, n *testnet.Node) {
	t.Helper()
	if out, err := n.Run("nft", `table inet cut { chain in { type filter hook input priority 0; iifname "a" drop; }; }`); err != nil {
		t.Fatal(err, out)
	}
}

func heal(t *testing.T, n *testnet.Node) {
	t.Helper()
	if out, err := n.Run("nft", "delete", "table", "inet", "cut"); err != nil {
		t.Fatal(err, out)
	}
}

// TestNetBFD: the link is cut, one way, the other way and both ways. The session is down at both ends long before its hold time, with what it had told; graceful
// restart keeps nothing. It is back when the link is.
func TestNetBFD(t *testing.T) {
	for name, restart := range map[string]time.Duration{"without graceful restart": 0, "with graceful restart": time.Minute} {
		t.Run(name, func(t *testing.T) {
			w := newBFDPair(t, restart)
			for _, one := range []struct {
				name string
				deaf []*testnet.Node
			}{{"FRR is deaf", []*testnet.Node{w.peer}}, {"we are deaf", []*testnet.Node{w.us}}, {"both are", []*testnet.Node{w.us, w.peer}}} {
				begun := time.Now()
				for _, n := range one.deaf {
					cut(t, n)
				}
				w.eventually(func() bool { s := w.state(frr4); return s.State != bgp.Established && s.Down }, one.name, ": the end of the session")
				took := time.Since(begun)
				w.eventually(func() bool { return w.seen.unicast(told) == nil }, one.name, ": FRR's prefix goes")
				w.eventually(func() bool { return len(w.f.routes("ipv4 unicast", vip4)) == 0 }, one.name, ": the VIP goes from FRR")
				if took > bfdHold/9 {
					t.Errorf("%s: found after %v", one.name, took)
				}
				t.Logf("%s: found after %v, detection time 300 ms", one.name, took.Round(time.Millisecond))
				for _, n := range one.deaf {
					heal(t, n)
				}
				w.up()
			}
		})
	}
}

// TestNetBFDEnds: who stops BFD on purpose keeps the session, and so does who loses bfdd itself at our end; one that comes again watches again.
func TestNetBFDEnds(t *testing.T) {
	w := newBFDPair(t, 0)
	defer func() { w.end() }()
	since := w.state(frr4).Since
	w.f.configure("no neighbor 10.0.1.1 bfd")
	w.eventually(func() bool { return !w.bfdUp() }, "BFD is down")
	// Nothing is to happen: what would, would within an interval or two.
	time.Sleep(2 * time.Second)
	if s := w.state(frr4); s.State != bgp.Established || !s.Since.Equal(since) {
		t.Errorf("the session has ended with BFD: %+v", s)
	}
	w.bfdd.Signal(unix.SIGKILL)
	_ = w.bfdd.Wait()
	w.bfdd = w.own.start("bfdd", "log stdout\n")
	w.f.configure("neighbor 10.0.1.1 bfd", "neighbor 10.0.1.1 bfd profile fast")
	w.eventually(w.bfdUp, "a bfdd that knows nothing is told again")
	if s := w.state(frr4); s.State != bgp.Established || !s.Since.Equal(since) {
		t.Errorf("the session has ended with bfdd: %+v", s)
	}
	cut(t, w.us)
	begun := time.Now()
	w.eventually(func() bool { return w.state(frr4).Down }, "the end of the session")
	if took := time.Since(begun); took > bfdHold/9 {
		t.Errorf("found after %v", took)
	}
	heal(t, w.us)
	w.up()
}
