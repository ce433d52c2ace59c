package gobgp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// messageMax is the largest message that is taken of the speaker, in bytes.
const messageMax = 64 << 20

// callTimeout is how long one call may take where the caller does not say.
const callTimeout = 10 * time.Second

// Options are what a Client works with.
type Options struct {
	// Target is where the speaker's API is: the path of a unix socket, or "host:port".
	Target string
	// Foreign: the speaker is somebody else's, who gave it its AS and may have neighbors, policies and paths of their own there. They are left alone.
	Foreign bool
	// Restarted says whether one like it spoke here before, and was not stopped: neighbors are told to keep what it said (RFC 4724). nil: never.
	Restarted func() bool
	// Check says why a path is not taken that the speaker has let pass; "" where it is. nil: all are. It is called from a goroutine of Watch.
	Check func(bgp.Learned) string
	// Hold is how long what neighbors told is kept when the speaker has gone, while they do not tell it again.
	Hold time.Duration
	// Most is how many paths are taken at most; 0: DefaultMost. More are refused.
	Most int
	Log  *slog.Logger
}

// DefaultMost is how many paths are taken where Options do not say.
const DefaultMost = 100_000

// Client is a bgp.Speaker.
type Client struct {
	Options
	conn *grpc.ClientConn
	api  api.GobgpApiClient
	// generation counts connections: with another one the speaker may be another, and nothing of it is known.
	generation atomic.Uint64
	applying   sync.Mutex
	has        has
	inherited  map[pathKey]bool // what the speaker had when it was met, and nobody has wanted since; nil: it was not met
	neighbors  *ownNeighbors
	end        context.CancelFunc // of what goes on beside calls
}

var _ bgp.Speaker = (*Client)(nil)

// New returns a Client, which connects when it has to. Close closes it.
func New(o Options) (*Client, error) {
	if o.Most == 0 {
		o.Most = DefaultMost
	}
	c := &Client{Options: o, neighbors: newOwnNeighbors()}
	network := "tcp"
	if strings.HasPrefix(o.Target, "/") {
		network = "unix"
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, o.Target)
		if err == nil {
			c.generation.Add(1)
		}
		return conn, err
	}
	conn, err := grpc.Dial("passthrough:///speaker",
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageMax)),
	)
	if err != nil {
		return nil, fmt.Errorf("speaker at %s: %w", o.Target, err)
	}
	c.conn, c.api = conn, api.NewGobgpApiClient(conn)
	ctx, end := context.WithCancel(context.Background())
	c.end = end
	go c.keepLimits(ctx)
	return c, nil
}

// ownNeighbors are those that were wanted last. In a speaker that is somebody else's there may be others.
type ownNeighbors struct {
	known chan struct{} // closed when they are
	once  sync.Once
	all   atomic.Pointer[map[netip.Addr]bool]
}

func newOwnNeighbors() *ownNeighbors { return &ownNeighbors{known: make(chan struct{})} }

func (o *ownNeighbors) set(wanted []bgp.Neighbor) {
	all := map[netip.Addr]bool{}
	for _, n := range wanted {
		all[n.Address] = true
	}
	o.all.Store(&all)
	o.once.Do(func() { close(o.known) })
}

func (o *ownNeighbors) has(a netip.Addr) bool {
	all := o.all.Load()
	return all != nil && (*all)[a]
}

// Close ends what goes on.
func (c *Client) Close() error {
	c.end()
	return c.conn.Close()
}

// failed tells what did not work, and what to do where the speaker is not there.
func (c *Client) failed(what string, err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		if s.Code() == codes.Unavailable {
			return fmt.Errorf("%s: the speaker at %s does not answer: %s", what, c.Target, s.Message())
		}
		switch s.Code() {
		case codes.Canceled:
			return fmt.Errorf("%s: %w", what, context.Canceled)
		case codes.DeadlineExceeded:
			return fmt.Errorf("%s: %w", what, context.DeadlineExceeded)
		}
		return fmt.Errorf("%s: %s", what, s.Message())
	}
	return fmt.Errorf("%s: %w", what, err)
}

// each reads a stream to its end.
func each[T any](s interface{ Recv() (T, error) }, take func(T) bool) error {
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !take(m) {
			return nil
		}
	}
}

// Answers asks the speaker's own loop for something small: an error says that it does not go round, or cannot be reached.
func (c *Client) Answers(ctx context.Context) error {
	_, err := c.api.GetBgp(ctx, &api.GetBgpRequest{})
	return c.failed("ask whether the speaker works", err)
}

// Forget takes away all that is ours, whatever AS the speaker has. One that was not started has nothing.
func (c *Client) Forget(ctx context.Context) error {
	answer, err := c.api.GetBgp(ctx, &api.GetBgpRequest{})
	if err != nil {
		return c.failed("ask the speaker for its AS", err)
	}
	g := answer.GetGlobal()
	if g.GetAsn() == 0 {
		return nil
	}
	id, err := netip.ParseAddr(g.GetRouterId())
	if err != nil {
		return fmt.Errorf("router id of the speaker at %s: %w", c.Target, err)
	}
	return c.Apply(ctx, bgp.Desired{AS: g.GetAsn(), RouterID: id})
}

// Leave ends all sessions with Cease: this router goes for good. They come back unless the speaker's process ends then.
func (c *Client) Leave(ctx context.Context) error {
	if _, err := c.api.ShutdownPeer(ctx, &api.ShutdownPeerRequest{}); err != nil {
		return c.failed("leave all neighbors", err)
	}
	tick := time.NewTicker(leavePoll)
	defer tick.Stop()
	for {
		all, err := c.Neighbors(ctx)
		if err != nil || !slices.ContainsFunc(all, func(n bgp.NeighborState) bool { return n.State == bgp.Established }) {
			return err
		}
		select {
		case <-ctx.Done():
			return c.failed("leave all neighbors", ctx.Err())
		case <-tick.C:
		}
	}
}

// leavePoll is how often it is looked whether all have gone.
const leavePoll = 20 * time.Millisecond
