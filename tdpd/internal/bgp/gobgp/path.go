package gobgp

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// pathKey is what there is one path of ours to.
type pathKey struct {
	family bgp.Family
	prefix netip.Prefix
	match  bgp.FlowMatch
}

func (k pathKey) String() string {
	if k.family.FlowSpec() {
		return fmt.Sprintf("rule for %v from %v", k.match.Destination, k.match.Source)
	}
	return fmt.Sprintf("%v %v", k.family, k.prefix)
}

func (a pathKey) compare(b pathKey) int {
	return cmp.Or(cmp.Compare(a.family, b.family), a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()),
		a.match.Source.Addr().Compare(b.match.Source.Addr()), cmp.Compare(a.match.Source.Bits(), b.match.Source.Bits()),
		cmp.Compare(a.match.Protocol, b.match.Protocol), cmp.Compare(a.match.Port, b.match.Port))
}

// atOnce is how many paths are told to the speaker in one message.
const atOnce = 256

// pathsWanted are all that the speaker is to have.
func pathsWanted(d bgp.Desired) (map[pathKey]*api.Path, error) {
	all := map[pathKey]*api.Path{}
	for _, p := range d.Unicast {
		all[pathKey{family: p.Family(), prefix: p.Prefix}] = encodeUnicast(p, d.AS)
	}
	for _, p := range d.Labelled {
		all[pathKey{family: p.Family(), prefix: p.Prefix}] = encodeLabelled(p, d.AS)
	}
	for _, r := range d.Rules {
		message, err := encodeRule(r, d.AS)
		if err != nil {
			return nil, err
		}
		all[pathKey{family: r.Family(), prefix: r.Destination, match: r.FlowMatch}] = message
	}
	return all, nil
}

// applyPaths tells what is new or otherwise, and withdraws what is not to be there.
func (c *Client) applyPaths(ctx context.Context, d bgp.Desired) error {
	if c.has.paths == nil {
		return nil // the speaker was never started
	}
	wanted, err := pathsWanted(d)
	if err != nil {
		return err
	}
	for k := range wanted {
		delete(c.inherited, k)
	}
	var changes []change
	for _, k := range slices.SortedFunc(maps.Keys(c.has.paths), pathKey.compare) {
		old := c.has.paths[k]
		isKept := d.Keep && c.inherited[k] && (!k.family.FlowSpec() || len(d.Rules) == 0)
		if _, stays := wanted[k]; !stays && !isKept {
			withdraw := proto.Clone(old).(*api.Path)
			withdraw.IsWithdraw = true
			changes = append(changes, change{k, withdraw})
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(wanted), pathKey.compare) {
		if old, there := c.has.paths[k]; !there || !proto.Equal(old, wanted[k]) {
			changes = append(changes, change{k, wanted[k]})
		}
	}
	for some := range slices.Chunk(changes, atOnce) {
		if err := c.tell(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

type change struct {
	key  pathKey
	path *api.Path
}

// tell brings some changes into the speaker, and notes them.
func (c *Client) tell(ctx context.Context, some []change) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := c.api.AddPathStream(ctx)
	if err != nil {
		return c.failed("announce", err)
	}
	r := &api.AddPathStreamRequest{TableType: api.TableType_GLOBAL}
	for _, one := range some {
		r.Paths = append(r.Paths, one.path)
	}
	err = stream.Send(r)
	if err == nil {
		_, err = stream.CloseAndRecv()
	}
	if err != nil {
		c.has.paths = nil // which of them it took is not known: it is asked
		return c.failed(fmt.Sprintf("announce %v and what comes with it", some[0].key), err)
	}
	for _, one := range some {
		if one.path.IsWithdraw {
			delete(c.has.paths, one.key)
		} else {
			c.has.paths[one.key] = one.path
		}
	}
	return nil
}

// pathsOfOurs asks for all paths that have our mark.
func (c *Client) pathsOfOurs(ctx context.Context) (map[pathKey]*api.Path, error) {
	all := map[pathKey]*api.Path{}
	for _, f := range bgp.Families() {
		err := c.list(ctx, &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: toFamily(f)}, func(p *api.Path) bool {
			t, _ := decode(p) // one of ours that cannot be read but for its prefix is told again, or withdrawn
			if t.ours && !t.from.IsValid() && t.prefix.IsValid() {
				all[pathKey{t.family, t.prefix, t.match}] = p
			}
			return true
		})
		if err != nil {
			return nil, c.failed("paths that the speaker has", err)
		}
	}
	return all, nil
}

// list calls take for each path of a table until it returns false.
func (c *Client) list(ctx context.Context, r *api.ListPathRequest, take func(*api.Path) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.api.ListPath(ctx, r)
	if err != nil {
		return err
	}
	return each(stream, func(r *api.ListPathResponse) bool {
		for _, p := range r.GetDestination().GetPaths() {
			if !take(p) {
				return false
			}
		}
		return true
	})
}
