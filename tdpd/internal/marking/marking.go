// Package marking steers users in the kernel's own tables: a BPF program marks what is for a VIP with the user's server (owner), rules lead
// each mark to a table of its own, and the one route there pushes the label of the server's tree. It steers where there is no fast path, and
// what that passes up. Owner 0 is nobody.
package marking

import (
	"errors"
	"fmt"
	"math/bits"
	"path/filepath"

	"github.com/manycast/manycast/internal/steer"
)

// Config says which part of marks, tables and rules is ours.
type Config struct {
	Edge     []string // interfaces toward users, by name
	Pins     string   // directory on a bpffs that keeps the program and its maps beyond the process
	Mark     uint32   // owner n's mark is Mark|n
	Mask     uint32   // the bits of a mark that are ours; its low bits that are not of Mark have the owner
	Table    uint32   // owner n's table is Table+n
	Priority uint32   // of the first of three priorities of rules
}

// PinsBelow is where the pins are, beside those of the fast path.
func PinsBelow(bpffs string) string { return filepath.Join(bpffs, "mark") }

// What rules are between, both exclusive: the kernel's own, of tables local and main.
const priorityMain = 32766

// ownersMost bounds the tables that are ours, whatever the mask.
const ownersMost = 1 << 16

// Owners is the highest owner that marks have room for; 0: none.
func (c Config) Owners() steer.Owner {
	free := bits.TrailingZeros32(^(c.Mask &^ c.Mark))
	return steer.Owner(min(uint64(1)<<free, ownersMost) - 1)
}

// Check finds what cannot work.
func (c Config) Check() error {
	switch last := uint64(c.Table) + uint64(c.Owners()); {
	case c.Mark == 0 || c.Mark&^c.Mask != 0:
		return fmt.Errorf("users_mark %#x: want bits of users_mark_mask %#x", c.Mark, c.Mask)
	case c.Owners() == 0:
		return fmt.Errorf("users_mark_mask %#x has no low bits beside users_mark %#x for the number of a server", c.Mask, c.Mark)
	case c.Table < 256 || last > 1<<32-1:
		return fmt.Errorf("users_table %d: want 256 or more, with room for %d tables", c.Table, c.Owners())
	case c.Priority == 0 || c.Priority+2 >= priorityMain:
		return fmt.Errorf("users_priority %d: want 1 to %d", c.Priority, priorityMain-3)
	}
	return nil
}

// Counters are what the program has done since its maps were made.
type Counters struct {
	Marked   uint64
	Nobody   uint64 // dropped or refused: the user has no owner
	Refused  uint64 // of these: left to the kernel, which says that the VIP cannot be reached
	Outsider uint64 // dropped: with a label, on an interface toward users
}

// byName are the counters by what was done, in words that are not the fast path's.
func (c Counters) byName() map[string]uint64 {
	return map[string]uint64{"marked": c.Marked, "mark_nobody": c.Nobody, "mark_refused": c.Refused, "mark_outsider": c.Outsider}
}

// ErrFull says that marks have no room for a server.
var ErrFull = errors.New("users_mark_mask has no room for more servers")
