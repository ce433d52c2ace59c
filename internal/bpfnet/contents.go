package bpfnet

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// SyncMap makes m hold exactly want. Entries that are right already are not touched; new ones are there before old ones go.
func SyncMap[K, V comparable](m *ebpf.Map, want map[K]V) error {
	var (
		key   K
		value V
		old   []K
	)
	have := make(map[K]V)
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		have[key] = value
		if _, ok := want[key]; !ok {
			old = append(old, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read BPF map %s: %w", m, err)
	}
	for k, v := range want {
		if was, ok := have[k]; ok && was == v {
			continue
		}
		if err := m.Put(k, v); err != nil {
			return fmt.Errorf("write BPF map %s: %w", m, err)
		}
	}
	for _, k := range old {
		if err := Deleted(m.Delete(k)); err != nil {
			return fmt.Errorf("delete from BPF map %s: %w", m, err)
		}
	}
	return nil
}

// Deleted is what deleting an entry came to: that it was not there is no error.
func Deleted(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// AddCounters reads the only entry of a per-CPU map and gives each CPU's value to add.
func AddCounters[C any](m *ebpf.Map, add func(C)) error {
	var cpus []C
	if err := m.Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read BPF map %s: %w", m, err)
	}
	for _, c := range cpus {
		add(c)
	}
	return nil
}
