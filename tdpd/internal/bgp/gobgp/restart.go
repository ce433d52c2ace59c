package gobgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// How long a restarted speaker waits for each neighbor, and for all of them: see restart.
const (
	restartOne = 5 * time.Second
	restartAll = 15 * time.Second
)

// turns are where a restarted speaker is with its neighbors.
type turns struct {
	whose  netip.Addr          // that it waits for; zero: for nobody
	until  time.Time           // then that one's turn ends
	all    time.Time           // then all turns end; zero: none has begun
	passed map[netip.Addr]bool // those whose turn is over and who have not come: they are the last
}

// restart adds the neighbors of a speaker that has restarted, one after the other. The library forgets that it restarts, for all that it has, when one of them has
// told all: who connects after that would hear that nothing was kept, and throw away what it has of ours. One that does not come is taken away again, and comes
// last, as a new one: its turn ends after restartOne, and all turns after restartAll. It waits for nobody itself: not over, it is to be called again.
func (c *Client) restart(ctx context.Context, missing []neighborAs) (over bool, err error) {
	t := &c.has.turns
	if t.all.IsZero() {
		t.all, t.passed = time.Now().Add(restartAll), map[netip.Addr]bool{}
	}
	if n, is := c.has.neighbors[t.whose]; is {
		passed, err := c.turnOver(ctx, n)
		if err != nil || !passed {
			return false, err
		}
		if t.passed[t.whose] {
			missing = append(missing, n)
		}
	}
	t.whose = netip.Addr{}
	var errs []error
	waiting := slices.DeleteFunc(slices.Clone(missing), func(n neighborAs) bool { return t.passed[n.Address] })
	for i, n := range waiting {
		if err := c.addNeighbor(ctx, n, true); err != nil {
			t.passed[n.Address] = true
			errs = append(errs, err)
			continue
		}
		if i == len(waiting)-1 && len(missing) == len(waiting) {
			return true, errors.Join(errs...) // nobody comes after it
		}
		t.whose, t.until = n.Address, earlier(time.Now().Add(restartOne), t.all)
		return false, errors.Join(errs...)
	}
	for _, n := range missing {
		if t.passed[n.Address] {
			errs = append(errs, c.addNeighbor(ctx, n, true))
		}
	}
	return true, errors.Join(errs...)
}

// turnOver says whether the speaker waits no more for the neighbor whose turn it is; one that has not come is taken away.
func (c *Client) turnOver(ctx context.Context, n neighborAs) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if over, err := c.restartOver(ctx, n.Address); err == nil && over {
		return true, nil
	}
	if time.Now().Before(c.has.turns.until) {
		return false, nil
	}
	if _, err := c.api.DeletePeer(ctx, &api.DeletePeerRequest{Address: n.Address.String()}); err != nil {
		return false, c.failed(fmt.Sprintf("put neighbor %v last", n.Address), err)
	}
	delete(c.has.neighbors, n.Address)
	c.has.turns.passed[n.Address] = true
	return true, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// restartOver says whether a neighbor's restart is over: it has told all, or was waited for long enough.
func (c *Client) restartOver(ctx context.Context, a netip.Addr) (over bool, err error) {
	stream, err := c.api.ListPeer(ctx, &api.ListPeerRequest{Address: a.String()})
	if err != nil {
		return false, err
	}
	err = each(stream, func(r *api.ListPeerResponse) bool {
		p := r.GetPeer()
		over = p.GetState().GetSessionState() == api.PeerState_ESTABLISHED && !p.GetGracefulRestart().GetLocalRestarting()
		return true
	})
	return over, err
}
