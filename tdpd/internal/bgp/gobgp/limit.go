package gobgp

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// limitEvery is how often neighbors' routes are counted.
const limitEvery = time.Second

// keepLimits ends sessions with neighbors that tell more than they may, until ctx is done. The library counts all routes of a neighbor with each of its updates where
// it has a limit, which takes hours with a full table: it is told of a limit when that is passed, and then says Cease, maximum number of prefixes reached (RFC 4486).
func (c *Client) keepLimits(ctx context.Context) {
	tick := time.NewTicker(limitEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := c.checkLimits(ctx); err != nil && ctx.Err() == nil {
			c.Log.Debug("neighbors' routes are not counted", "err", err, "again", limitEvery)
		}
	}
}

func (c *Client) checkLimits(ctx context.Context) error {
	if !c.hasLimits() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all, err := c.Neighbors(ctx)
	if err != nil {
		return err
	}
	c.applying.Lock()
	defer c.applying.Unlock()
	var errs []error
	for _, s := range all {
		n, isOurs := c.has.neighbors[s.Address]
		if !isOurs || n.limited || !isOver(s, n.MaxPrefixes) {
			continue
		}
		c.Log.Warn("BGP: a neighbor tells more than max_prefixes, and has no session until it is cleared", "neighbor", s.Address, "max_prefixes", n.MaxPrefixes)
		n.limited = true
		errs = append(errs, c.changeNeighbor(ctx, n))
	}
	return errors.Join(errs...)
}

func (c *Client) hasLimits() bool {
	c.applying.Lock()
	defer c.applying.Unlock()
	for _, n := range c.has.neighbors {
		if n.MaxPrefixes > 0 {
			return true
		}
	}
	return false
}

func isOver(s bgp.NeighborState, most uint32) bool {
	return most > 0 && slices.ContainsFunc(s.Families, func(f bgp.FamilyState) bool { return f.Received > uint64(most) })
}

// unlimit has a neighbor begin anew below its limit.
func (c *Client) unlimit(ctx context.Context, s bgp.NeighborState) error {
	c.applying.Lock()
	defer c.applying.Unlock()
	n, isOurs := c.has.neighbors[s.Address]
	if !isOurs || !n.limited {
		return nil
	}
	n.limited = false
	return c.changeNeighbor(ctx, n)
}
