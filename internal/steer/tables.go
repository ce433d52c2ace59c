package steer

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// slotTable and userTable are what goes into steer_slots and steer_users.
var (
	slotTable = ebpf.MapSpec{Name: "steer_table", Type: ebpf.Array, KeySize: 4, ValueSize: 4 * lineSlots, MaxEntries: 1, Flags: unix.BPF_F_INNER_MAP}
	userTable = ebpf.MapSpec{
		Name: "steer_table", Type: ebpf.Array, KeySize: 4, ValueSize: 8 * lineUsers, MaxEntries: 1, Flags: unix.BPF_F_INNER_MAP | unix.BPF_F_MMAPABLE,
	}
)

// tables are the tables of one kind that this process made, by generation.
type tables struct {
	kind  string
	spec  ebpf.MapSpec
	outer *ebpf.Map
	made  map[uint32]*ebpf.Map
	fresh []uint32 // not yet in outer
}

func newTables(kind string, spec ebpf.MapSpec) *tables {
	return &tables{kind: kind, spec: spec, made: map[uint32]*ebpf.Map{}}
}

func newTable(spec ebpf.MapSpec, lines int) (*ebpf.Map, error) {
	spec.MaxEntries = uint32(lines)
	return ebpf.NewMap(&spec)
}

// len is how many lines a generation's table has; 0: this process made none.
func (t *tables) len(g uint32) int {
	if m := t.made[g]; m != nil {
		return int(m.MaxEntries())
	}
	return 0
}

// reserve makes a table of that length unless there is one.
func (t *tables) reserve(g uint32, lines int) error {
	if t.len(g) == lines {
		return nil
	}
	t.drop(g)
	m, err := newTable(t.spec, lines)
	if err != nil {
		return fmt.Errorf("%s of %d lines: %w", t.kind, lines, err)
	}
	t.made[g] = m
	t.fresh = append(t.fresh, g)
	return nil
}

// fill makes a table and writes its lines; no lookup uses the generation.
func (t *tables) fill(g uint32, lines int, values any) error {
	if err := t.reserve(g, lines); err != nil {
		return err
	}
	at := make([]uint32, lines)
	for i := range at {
		at[i] = uint32(i)
	}
	if _, err := t.made[g].BatchUpdate(at, values, nil); err != nil {
		return fmt.Errorf("%s of %d lines: %w", t.kind, lines, err)
	}
	return nil
}

// put puts fresh tables where programs find them, which costs a grace period.
func (t *tables) put() error {
	if len(t.fresh) == 0 {
		return nil
	}
	fresh, fds := t.fresh, make([]uint32, len(t.fresh))
	for i, g := range fresh {
		fds[i] = uint32(t.made[g].FD())
	}
	t.fresh = nil
	if _, err := t.outer.BatchUpdate(fresh, fds, nil); err != nil {
		t.drop(fresh...)
		return fmt.Errorf("%ss: %w", t.kind, err)
	}
	return nil
}

// drop forgets tables of this process; what programs find stays there until it is replaced.
func (t *tables) drop(generations ...uint32) {
	for _, g := range generations {
		if m := t.made[g]; m != nil {
			m.Close()
			delete(t.made, g)
		}
	}
	t.fresh = slices.DeleteFunc(t.fresh, func(g uint32) bool { return t.made[g] == nil })
}
