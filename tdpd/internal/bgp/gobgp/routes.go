package gobgp

import (
	"context"
	"errors"
	"fmt"

	api "github.com/osrg/gobgp/v3/api"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// Routes implements bgp.Speaker. What cannot be read is left out.
func (c *Client) Routes(ctx context.Context, q bgp.Query, take func(bgp.Route) bool) error {
	r := &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: toFamily(q.Family), SortType: api.ListPathRequest_PREFIX}
	if q.Neighbor.IsValid() {
		r.Name, r.TableType, r.EnableFiltered = q.Neighbor.String(), api.TableType_ADJ_IN, true
		if q.Told {
			r.TableType = api.TableType_ADJ_OUT
		}
	}
	if q.Prefix.IsValid() && (q.Family == bgp.IPv4Unicast || q.Family == bgp.IPv6Unicast) { // others the speaker does not look up
		r.Prefixes = []*api.TableLookupPrefix{{Prefix: q.Prefix.String(), Type: api.TableLookupPrefix_EXACT}}
	}
	err := c.list(ctx, r, func(p *api.Path) bool {
		t, err := decode(p)
		if err != nil || q.Prefix.IsValid() && q.Prefix != t.prefix {
			return true
		}
		return take(bgp.Route{Learned: t.learned, Best: p.GetBest(), Filtered: p.GetFiltered()})
	})
	if err != nil && q.Neighbor.IsValid() {
		if _, none := c.neighbor(ctx, q.Neighbor); errors.Is(none, bgp.ErrNoNeighbor) {
			return fmt.Errorf("routes of %v of neighbor %v: %w", q.Family, q.Neighbor, none)
		}
	}
	return c.failed(fmt.Sprintf("routes of %v", q.Family), err)
}
