package gobgp

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// peers is the part of a speaker that has neighbors: those that come do so when they are added.
type peers struct {
	api.GobgpApiClient
	comes map[string]bool
	has   []string
	said  []string // what it was told, in order
}

func (p *peers) say(what, address string) { p.said = append(p.said, what+address[len("10.0.1."):]) }

func (p *peers) AddPeer(_ context.Context, r *api.AddPeerRequest, _ ...grpc.CallOption) (*emptypb.Empty, error) {
	a := r.GetPeer().GetConf().GetNeighborAddress()
	p.say("+", a)
	p.has = append(p.has, a)
	return nil, nil
}

func (p *peers) DeletePeer(_ context.Context, r *api.DeletePeerRequest, _ ...grpc.CallOption) (*emptypb.Empty, error) {
	p.say("-", r.GetAddress())
	p.has = slices.DeleteFunc(p.has, func(a string) bool { return a == r.GetAddress() })
	return nil, nil
}

func (p *peers) UpdatePeer(_ context.Context, r *api.UpdatePeerRequest, _ ...grpc.CallOption) (*api.UpdatePeerResponse, error) {
	p.say("!", r.GetPeer().GetConf().GetNeighborAddress())
	return &api.UpdatePeerResponse{}, nil
}

func (p *peers) ListPeer(_ context.Context, r *api.ListPeerRequest, _ ...grpc.CallOption) (api.GobgpApi_ListPeerClient, error) {
	if slices.Contains(p.has, r.GetAddress()) && p.comes[r.GetAddress()] {
		return &onePeer{peer: &api.Peer{State: &api.PeerState{SessionState: api.PeerState_ESTABLISHED}}}, nil
	}
	return &onePeer{peer: &api.Peer{GracefulRestart: &api.GracefulRestart{LocalRestarting: true}}}, nil
}

type onePeer struct {
	api.GobgpApi_ListPeerClient
	peer *api.Peer
}

func (o *onePeer) Recv() (*api.ListPeerResponse, error) {
	if o.peer == nil {
		return nil, io.EOF
	}
	p := o.peer
	o.peer = nil
	return &api.ListPeerResponse{Peer: p}, nil
}

// TestTurns: a speaker that has restarted takes its neighbors one after the other, and who does not come last; nobody waits for that inside a call.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peers{comes: map[string]bool{"10.0.1.2": true, "10.0.1.4": true}}
		c := &Client{api: p, has: has{restarted: true, neighbors: map[netip.Addr]neighborAs{}}}
		d := bgp.Desired{AS: 1, Restart: bgp.Restart{Time: time.Minute}}
		for _, a := range []string{"10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5"} {
			d.Neighbors = append(d.Neighbors, bgp.Neighbor{Address: addr(a), AS: 2})
		}
		apply := func() error {
			begun := time.Now()
			err := c.applyNeighbors(t.Context(), d)
			if took := time.Since(begun); took > 0 {
				t.Fatalf("a call took %v", took)
			}
			return err
		}
		want := func(want string) {
			t.Helper()
			if got := strings.Join(p.said, " "); got != want {
				t.Fatalf("the speaker was told %s, want %s", got, want)
			}
		}
		if err := apply(); !errors.Is(err, bgp.ErrWaits) {
			t.Fatal(err)
		}
		d.Neighbors = slices.Clone(d.Neighbors)
		d.Neighbors[0].Down = true // while it has its turn
		if err := apply(); !errors.Is(err, bgp.ErrWaits) {
			t.Fatal(err)
		}
		want("+1 !1")
		begun := time.Now()
		for apply() != nil {
			time.Sleep(100 * time.Millisecond)
		}
		want("+1 !1 -1 +2 +3 -3 +4 +5 -5 +1 +3 +5")
		if took := time.Since(begun).Round(time.Second); took != 15*time.Second {
			t.Errorf("all turns took %v", took)
		}
		if err := apply(); err != nil || len(p.said) != 12 {
			t.Errorf("%v, %v", err, p.said)
		}
	})
}

// TestTurnOfOneWhoIsRemoved: the next one's turn begins at once.
func TestTurnOfOneWhoIsRemoved(t *testing.T) {
	p := &peers{}
	c := &Client{api: p, has: has{restarted: true, neighbors: map[netip.Addr]neighborAs{}}}
	d := bgp.Desired{AS: 1, Restart: bgp.Restart{Time: time.Minute}, Neighbors: []bgp.Neighbor{{Address: addr("10.0.1.1"), AS: 2}, {Address: addr("10.0.1.2"), AS: 2}}}
	if err := c.applyNeighbors(t.Context(), d); !errors.Is(err, bgp.ErrWaits) {
		t.Fatal(err)
	}
	d.Neighbors = d.Neighbors[1:]
	if err := errors.Join(c.removeNeighbors(t.Context(), d), c.applyNeighbors(t.Context(), d)); err != nil || strings.Join(p.said, " ") != "+1 -1 +2" {
		t.Errorf("%v, %v", err, p.said)
	}
}
