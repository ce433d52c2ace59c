package kernel

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/manycast/manycast/internal/steer"
)

// Mode says how private groups are forwarded.
type Mode string

// The modes of [forwarding] mode.
const (
	ModeOwner  Mode = "owner"  // one (*,G) table per owner, chosen by the classifier's mark
	ModeSource Mode = "source" // (S,G) entries on demand, no BPF
)

// Config is the section [forwarding] of igmpd.toml, and the holder.
type Config struct {
	Holder           string // unix socket of `igmpd holder`; empty: the sockets are this process' own
	Mode             Mode
	Accelerator      bool
	Mark, MarkMask   uint32 // owner N's mark is Mark|N under MarkMask
	TableBase        uint32 // owner N's table is TableBase+N
	PublicTable      uint32 // 0: the kernel's default table
	SourceEntriesMax int    // (S,G) entries on demand, at least 1
	BPFFS            string // directory of the pins, owner mode only
}

// Check finds what cannot work.
func (c Config) Check() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("forwarding: "+format, a...)) }
	if c.SourceEntriesMax < 1 {
		bad("source_entries_max is %d, at least 1 is needed", c.SourceEntriesMax)
	}
	switch c.Mode {
	case ModeSource:
		return errors.Join(errs...)
	case ModeOwner:
	default:
		bad("mode %q is neither %q nor %q", c.Mode, ModeOwner, ModeSource)
		return errors.Join(errs...)
	}
	if c.Mark == 0 || c.Mark&^c.MarkMask != 0 {
		bad("mark %#x must not be 0 and lie within mark_mask %#x", c.Mark, c.MarkMask)
	}
	if c.OwnersMax() == 0 {
		bad("mark_mask %#x leaves no low bits beside mark %#x for the owner's number", c.MarkMask, c.Mark)
	}
	if c.TableBase == 0 || uint64(c.TableBase)+uint64(c.OwnersMax()) >= tablesEnd {
		bad("table_base %d is out of range: tables up to %d are needed, the kernel takes up to %d", c.TableBase, c.OwnersMax(), tablesEnd-1)
	}
	if p := c.publicTable(); p > c.TableBase && p <= c.TableBase+uint32(c.OwnersMax()) {
		bad("public_table %d lies among the owners' tables %d to %d", p, c.TableBase+1, c.TableBase+uint32(c.OwnersMax()))
	}
	if c.BPFFS == "" {
		bad("bpffs is empty, owner mode needs a directory for its pins")
	}
	return errors.Join(errs...)
}

const (
	tablesEnd    = 100_000_000 // MRT_TABLE's limit in the kernel
	tableDefault = 253         // RT_TABLE_DEFAULT
	ownersMost   = 1 << 16     // more than any router has members; bounds the per-CPU counters
)

// OwnersMax is the highest owner number that the mark can carry: the run of low bits in MarkMask that Mark leaves free.
func (c Config) OwnersMax() steer.Owner {
	free := bits.TrailingZeros32(^(c.MarkMask &^ c.Mark))
	return steer.Owner(min(uint64(1)<<free, ownersMost) - 1)
}

func (c Config) publicTable() uint32 {
	if c.PublicTable == 0 {
		return tableDefault
	}
	return c.PublicTable
}
