package interop

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgp/child"
	"github.com/manycast/manycast/tdpd/internal/bgp/gobgp"
)

const (
	ourAS = 4_200_000_001 // four octets
	frrAS = 65001
)

// soon is how long something may take that is to happen at once, on a machine that is held up.
const soon = 40 * time.Second

var (
	us4, us6   = netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("2001:db8:1::1")
	frr4, frr6 = netip.MustParseAddr("10.0.1.2"), netip.MustParseAddr("2001:db8:1::2")
	vip4, vip6 = netip.MustParsePrefix("192.0.2.80/32"), netip.MustParsePrefix("2001:db8:80::80/128")
)

// rig is us a--a frr: us is the namespace of a speaker of ours.
type rig struct {
	t      *testing.T
	net    *testnet.Net
	us     *testnet.Node
	peer   *testnet.Node
	log    *lockedBuffer
	child  *child.Child
	client *gobgp.Client
	stop   func(keep bool) // ends the child as a daemon does
	check  func(bgp.Learned) string
	every  time.Duration // between the child's questions whether the speaker works; 0: as a daemon has it
	d      bgp.Desired
}

// newRig makes the network, and starts a speaker in it that knows nothing yet.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := newNetwork(t)
	r.startChild()
	return r
}

func newNetwork(t *testing.T) *rig {
	t.Helper()
	return newNetworkIn(t, testnet.New(t))
}

func newNetworkIn(t *testing.T, n *testnet.Net) *rig {
	t.Helper()
	r := &rig{t: t, net: n, us: n.Node("us"), peer: n.Node("frr"), log: &lockedBuffer{}}
	t.TempDir() // it goes after what is registered from here on, and has logs
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("speaker:\n%s", r.log.String())
		}
	})
	n.Link(r.us, "a", "10.0.1.1/24", r.peer, "a", "10.0.1.2/24")
	for _, x := range []struct {
		node *testnet.Node
		a    netip.Addr
	}{{r.us, us6}, {r.peer, frr6}} {
		if out, err := x.node.Run("ip", "address", "add", x.a.String()+"/64", "dev", "a", "nodad"); err != nil {
			t.Fatal(err, out)
		}
	}
	r.d = bgp.Desired{
		AS: ourAS, RouterID: us4, Port: 179, VIPs: []netip.Prefix{vip4, vip6},
		Restart: bgp.Restart{Time: 60 * time.Second, Deferral: 10 * time.Second},
	}
	return r
}

// startChild starts the speaker's process as tdpd does, but in the namespace.
func (r *rig) startChild() {
	r.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := os.OpenFile(filepath.Join(r.t.TempDir(), "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	r.log.files = append(r.log.files, out.Name())
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.child = child.New(child.Options{
		Exe: ip, Args: []string{"netns", "exec", r.us.Name(), exe, "speaker"}, Dir: filepath.Join(r.t.TempDir(), "speaker"), Stderr: out, Log: log,
		Leave: func(ctx context.Context) error { return r.client.Leave(ctx) },
		Ask:   func(ctx context.Context) error { return r.client.Answers(ctx) }, Every: r.every,
	})
	r.client, err = gobgp.New(gobgp.Options{Target: r.child.Socket(), Restarted: r.child.Restarted, Hold: r.d.Restart.Time, Check: r.check, Log: log})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.child.Run(ctx) }()
	var once sync.Once
	r.stop = func(keep bool) {
		once.Do(func() {
			if keep {
				cancel(errKeep)
			}
			cancel(nil)
			if err := <-ended; err != nil {
				r.t.Errorf("the speaker's process: %v", err)
			}
		})
	}
	r.t.Cleanup(func() {
		r.stop(false)
		r.client.Close()
		out.Close()
	})
	select {
	case <-r.child.Ready():
	case <-time.After(soon):
		r.t.Fatal("the speaker does not answer")
	}
}

type restarted struct{}

func (restarted) Error() string { return "the daemon is restarted" }

var errKeep error = restarted{}

// apply has the speaker do as r.d says. It is tried again where the speaker is not there.
func (r *rig) apply() {
	r.t.Helper()
	var err error
	for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		err = r.client.Apply(ctx, r.d)
		cancel()
		if err == nil {
			return
		}
	}
	r.t.Fatal(err)
}

func (r *rig) eventually(cond func() bool, what ...any) {
	r.t.Helper()
	testnet.Eventually(r.t, soon, cond, what...)
}

// neighbor is FRR, on the link.
func (r *rig) neighbor(families ...bgp.Family) bgp.Neighbor {
	return bgp.Neighbor{
		Address: frr4, AS: frrAS, Hops: 1, Hold: 9 * time.Second, Keepalive: 3 * time.Second, ConnectRetry: time.Second, Families: families,
	}
}

func (r *rig) state(a netip.Addr) bgp.NeighborState {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	all, err := r.client.Neighbors(ctx)
	if err != nil {
		return bgp.NeighborState{}
	}
	for _, n := range all {
		if n.Address == a {
			return n
		}
	}
	return bgp.NeighborState{}
}

func (r *rig) established(a netip.Addr) {
	r.t.Helper()
	r.eventually(func() bool { return r.state(a).State == bgp.Established }, "the session with ", a)
}

// lockedBuffer is a log, and files beside it.
type lockedBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	files []string
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.b.String()
	for _, f := range b.files {
		more, _ := os.ReadFile(f)
		text += string(more)
	}
	return text
}
