package gobgp

import (
	"context"
	"fmt"
	"net/netip"

	api "github.com/osrg/gobgp/v3/api"
)

// Clear implements bgp.Speaker.
func (c *Client) Clear(ctx context.Context, neighbor netip.Addr, soft bool) error {
	what := fmt.Sprintf("clear neighbor %v", neighbor)
	n, err := c.neighbor(ctx, neighbor)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if n.OverLimit && !soft { // it has no session that a reset could end
		if err := c.unlimit(ctx, n); err != nil {
			return err
		}
		_, err = c.api.EnablePeer(ctx, &api.EnablePeerRequest{Address: neighbor.String()})
	} else {
		_, err = c.api.ResetPeer(ctx, &api.ResetPeerRequest{Address: neighbor.String(), Soft: soft, Direction: api.ResetPeerRequest_BOTH})
	}
	return c.failed(what, err)
}
