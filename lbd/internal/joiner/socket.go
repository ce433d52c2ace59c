package joiner

import (
	"errors"
	"net/netip"

	"github.com/manycast/manycast/internal/igmp"
)

// ErrLinkGone says that the interface was deleted. One that is made anew under its name is another one.
var ErrLinkGone = errors.New("the interface is gone")

// Socket is the link that the groups are joined on.
type Socket interface {
	// SetGroups makes the interface take the packets of these groups and of no others of earlier calls. The kernel's own
	// IGMP is not told: it would send unsigned reports.
	SetGroups(groups []netip.Addr) error
	// Send sends a report to all IGMPv3 routers of the link (224.0.0.22, TTL 1, router alert) from the requester's address.
	Send(report []byte) error
	// ReadQuery waits for the next query of a querier. After Close the error wraps net.ErrClosed or os.ErrClosed,
	// after the end of the interface ErrLinkGone.
	ReadQuery() (igmp.Query, error)
	// Close gives the groups up and ends ReadQuery.
	Close() error
}
