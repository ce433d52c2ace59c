package bpfnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// LoadPinned loads spec's programs and maps into to, as its LoadAndAssign does, with the maps pinned in dir: those that a process before has
// left there are taken over with what they hold. Where one has another layout (of another version, of another size) all are replaced, but
// for those that keep names and that fit: the programs before go on with the former ones until they are replaced themselves. replaced says so.
func LoadPinned(spec *ebpf.CollectionSpec, dir string, to any, keep ...string) (replaced bool, err error) {
	coll, replaced, err := NewPinned(spec, dir, keep...)
	if err != nil {
		return replaced, err
	}
	defer coll.Close() // of what to has no field for
	return replaced, coll.Assign(to)
}

// NewPinned is LoadPinned of a whole collection.
func NewPinned(spec *ebpf.CollectionSpec, dir string, keep ...string) (coll *ebpf.Collection, replaced bool, err error) {
	for name, m := range spec.Maps {
		if isPinned(name) {
			m.Pinning = ebpf.PinByName
		}
	}
	options := ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}}
	coll, err = ebpf.NewCollectionWithOptions(spec, options)
	if !errors.Is(err, ebpf.ErrMapIncompatible) {
		return coll, false, err
	}
	keep = slices.DeleteFunc(slices.Clone(keep), func(name string) bool { return !fits(spec, dir, name) })
	if err := RemoveMaps(spec, dir, keep...); err != nil {
		return nil, false, err
	}
	coll, err = ebpf.NewCollectionWithOptions(spec, options)
	return coll, true, err
}

// RemoveMaps removes the pins of spec's maps from dir, but for those that keep names. What is not there is no error.
func RemoveMaps(spec *ebpf.CollectionSpec, dir string, keep ...string) error {
	var errs []error
	for name := range spec.Maps {
		if !isPinned(name) || slices.Contains(keep, name) {
			continue
		}
		if err := remove(filepath.Join(dir, name)); err != nil {
			errs = append(errs, fmt.Errorf("remove pinned map: %w", err))
		}
	}
	return errors.Join(errs...)
}

// RemovePins takes off what processes before have attached under pins in dir whose names begin with prefix, and removes those pins, but
// for those that keep says to. That there is no dir is no error.
func RemovePins(dir, prefix string, keep func(name string) bool) error {
	pins, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, p := range pins {
		if name := p.Name(); strings.HasPrefix(name, prefix) && (keep == nil || !keep(name)) {
			errs = append(errs, RemovePin(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}

// isPinned says whether a map is one process' and the next one's: constants (.rodata) are each process' own.
func isPinned(name string) bool { return !strings.HasPrefix(name, ".") }

// fits says whether the map pinned under a name has the layout of spec.
func fits(spec *ebpf.CollectionSpec, dir, name string) bool {
	want := spec.Maps[name]
	if want == nil {
		return false
	}
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
	if err != nil {
		return false
	}
	defer m.Close()
	return want.Compatible(m) == nil
}
