package alloc

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
)

// None stands for no server in Owner and Standby.
const None = 0xffff

// MaxServers is the most servers that an allocation can name.
const MaxServers = 4095

// Allocation is a partition of the source space into cells, each of which has one owner: the slots, less the fixed portions, and
// then the fixed portions. The zero Allocation has no cells and is what comes before the first.
type Allocation struct {
	Epoch   epoch.Epoch
	Slots   Slots
	Servers []string          // sorted
	Fixed   []portion.Portion // sorted by Compare, disjoint, IPv4, at most MaxFixed and as CheckFixed has them
	Owner   []uint16          // per cell an index into Servers
	Standby []uint16          // per cell an index into Servers; None where there is no second server

	// Addresses are the servers' own, in the order of Servers; invalid where not known. They say who is whose neighbour and
	// change nothing of the partition.
	Addresses []netip.Addr

	// Trail says who had the cells before, of a service that keeps moved users' connections. It changes nothing of the partition.
	Trail Trail
}

// Zero reports whether a is what comes before the first allocation.
func (a Allocation) Zero() bool { return len(a.Owner) == 0 }

// Check returns an error for an allocation that is not one partition: what comes from outside is checked before use.
func (a Allocation) Check() error {
	if err := a.Slots.Check(); err != nil {
		return err
	}
	if err := CheckFixed(a.Slots, a.Fixed); err != nil {
		return fmt.Errorf("allocation %v: %w", a.Epoch, err)
	}
	if !slices.IsSortedFunc(a.Fixed, portion.Portion.Compare) {
		return fmt.Errorf("allocation %v: fixed portions are not sorted", a.Epoch)
	}
	n := a.Cells()
	if len(a.Owner) != n || len(a.Standby) != n {
		return fmt.Errorf("allocation %v: %d owners and %d standbys for %d slots and %d fixed portions",
			a.Epoch, len(a.Owner), len(a.Standby), a.Slots.Count(), len(a.Fixed))
	}
	if len(a.Servers) == 0 || len(a.Servers) > MaxServers {
		return fmt.Errorf("allocation %v: %d servers, want 1 to %d", a.Epoch, len(a.Servers), MaxServers)
	}
	for i, name := range a.Servers {
		if name == "" || i > 0 && a.Servers[i-1] >= name {
			return fmt.Errorf("allocation %v: servers are not sorted and distinct at %q", a.Epoch, name)
		}
	}
	if len(a.Addresses) != 0 && len(a.Addresses) != len(a.Servers) {
		return fmt.Errorf("allocation %v: %d addresses of %d servers", a.Epoch, len(a.Addresses), len(a.Servers))
	}
	for i := range n {
		if int(a.Owner[i]) >= len(a.Servers) {
			return fmt.Errorf("allocation %v: %s belongs to nobody", a.Epoch, a.cellName(i))
		}
		if s := a.Standby[i]; s != None && (int(s) >= len(a.Servers) || s == a.Owner[i]) {
			return fmt.Errorf("allocation %v: %s has no proper standby", a.Epoch, a.cellName(i))
		}
	}
	return a.Trail.check(a)
}

// Same reports whether a and b have the same cells and give each to the same owner and standby, whatever their epochs.
func (a Allocation) Same(b Allocation) bool {
	return a.Slots == b.Slots && slices.Equal(a.Fixed, b.Fixed) && slices.Equal(a.Servers, b.Servers) &&
		slices.Equal(a.Owner, b.Owner) && slices.Equal(a.Standby, b.Standby)
}

// Counts returns how many slots each server owns, whatever fixed portions take of them; every server of the allocation is in it.
func (a Allocation) Counts() map[string]int {
	counts := make(map[string]int, len(a.Servers))
	for _, name := range a.Servers {
		counts[name] = 0
	}
	for _, o := range a.slotsOf(a.Owner) {
		counts[a.Servers[o]]++
	}
	return counts
}

// Address returns the server's own address; invalid: not known.
func (a Allocation) Address(server string) netip.Addr {
	if i, ok := a.index(server); ok && int(i) < len(a.Addresses) {
		return a.Addresses[i]
	}
	return netip.Addr{}
}

// Has reports whether server owns a cell or stands by for one.
func (a Allocation) Has(server string) bool {
	i, ok := a.index(server)
	return ok && (slices.Contains(a.Owner, i) || slices.Contains(a.Standby, i))
}

// Owns reports whether server owns a cell.
func (a Allocation) Owns(server string) bool {
	i, ok := a.index(server)
	return ok && slices.Contains(a.Owner, i)
}

// Used are the servers that own a cell or stand by for one, sorted.
func (a Allocation) Used() []string {
	used := make([]bool, len(a.Servers))
	for i, o := range a.Owner {
		used[o] = true
		if s := a.Standby[i]; s != None {
			used[s] = true
		}
	}
	var names []string
	for i, name := range a.Servers {
		if used[i] {
			names = append(names, name)
		}
	}
	return names
}

// Answer says why a user reaches its server.
type Answer struct {
	Slot    int  // that the user's address chooses
	Fixed   bool // Portion is a fixed one, not the slot
	Portion portion.Portion
	Owner   string
	Standby string // empty: there is none
}

// ErrNotIPv4 is returned for a user whose address has no slot.
var ErrNotIPv4 = errors.New("not an IPv4 address")

// Why returns the cell of a user and who serves it.
func (a Allocation) Why(user netip.Addr) (Answer, error) {
	if !user.Unmap().Is4() {
		return Answer{}, fmt.Errorf("user %v: %w", user, ErrNotIPv4)
	}
	if a.Zero() {
		return Answer{}, errors.New("nothing is allocated yet: no server has registered")
	}
	return a.why(a.Slots.Index(user), a.CellOf(user)), nil
}

// WhyStandin is Why of what stands in for a user (steer.Standin, steer.Flow): fixed portions are not for it.
func (a Allocation) WhyStandin(standin netip.Addr) (Answer, error) {
	a.Fixed = nil
	return a.Why(standin)
}

func (a Allocation) why(slot, cell int) Answer {
	return Answer{
		Slot: slot, Fixed: cell >= a.Slots.Count(), Portion: a.portionOf(cell), Owner: a.OwnerOf(cell), Standby: a.StandbyOf(cell),
	}
}

func (a Allocation) index(server string) (uint16, bool) {
	i, ok := slices.BinarySearch(a.Servers, server)
	return uint16(i), ok
}
