package mover

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/handover"
)

// View is a service as this server executes it.
type View struct {
	Service    service.Service
	Allocation alloc.Allocation
}

// views are those whose connections move, by the service's name.
type views map[string]View

func newViews(all []View) views {
	v := views{}
	for _, view := range all {
		if view.Service.Handover.Has(service.Transfer) && !view.Allocation.Zero() {
			v[view.Service.Name] = view
		}
	}
	return v
}

// owner is whose a user is.
func (v View) owner(user netip.AddrPort) string { return v.Allocation.OwnerOf(v.cell(user)) }

// cell is the user's, as at the routers.
func (v View) cell(user netip.AddrPort) int {
	address, standin := v.Service.Split.User(user)
	if standin {
		return v.Allocation.Slots.Index(address)
	}
	return v.Allocation.CellOf(address)
}

// Ends are the addresses and TCP ports of the service.
func (v View) Ends() []netip.AddrPort { return v.Service.Ends() }

// givers are the servers that may hold connections of this server's users.
func (v View) givers(name string) []string {
	found := map[string]bool{}
	var out []string
	for cell := range v.Allocation.Owner {
		if v.Allocation.OwnerOf(cell) != name {
			continue
		}
		for _, h := range v.Allocation.ChainOf(cell).Hops {
			if !found[h.Server] && h.Server != name {
				found[h.Server] = true
				out = append(out, h.Server)
			}
		}
	}
	slices.Sort(out)
	return out
}

// address is a server's own, by any of the allocations that are executed.
func (v views) address(server string) (netip.Addr, error) {
	for _, view := range v {
		if a := view.Allocation.Address(server); a.IsValid() {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("the address of server %s is not known", server)
}

// refusal is why an offer is refused, as far as the allocation tells.
func (v views) refusal(name string, o handover.Offer) handover.Why {
	view, known := v[o.Service]
	switch {
	case !known:
		return handover.Why{Reason: handover.Foreign, Text: "no connections of the service move here"}
	case view.Allocation.Epoch != o.Epoch:
		return handover.Why{Reason: handover.Stale, Text: fmt.Sprintf("epoch %v is executed", view.Allocation.Epoch)}
	case !slices.Contains(view.Ends(), o.Flow.Local):
		return handover.Why{Reason: handover.Foreign, Text: "the service does not have this address"}
	case view.owner(o.Flow.Remote) != name:
		return handover.Why{Reason: handover.Foreign, Text: "the user is another server's"}
	}
	return handover.Why{}
}

// deadline is when what a service's users have elsewhere is to be here.
func (v View) deadline(now time.Time) time.Time { return now.Add(v.Service.Handover.Deadline) }
