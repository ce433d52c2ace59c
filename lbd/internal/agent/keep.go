package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/store"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// shelf keeps the executed allocations in a directory, a file each.
type shelf struct{ dir string }

const shelfSuffix = ".allocation"

func (s shelf) keep(name string, a alloc.Allocation) error {
	data, err := proto.Marshal(alloc.ToProto(name, a))
	if err != nil {
		return fmt.Errorf("keep allocation of %s: %w", name, err)
	}
	if err := store.WriteFile(filepath.Join(s.dir, name+shelfSuffix), data); err != nil {
		return fmt.Errorf("keep allocation of %s: %w", name, err)
	}
	return nil
}

// load returns what was kept, and what cannot be read as errors beside it.
func (s shelf) load() (map[string]alloc.Allocation, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("kept allocations: %w", err)
	}
	kept := map[string]alloc.Allocation{}
	var bad []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), shelfSuffix)
		if !ok || service.CheckName(name) != nil {
			continue
		}
		a, err := readAllocation(filepath.Join(s.dir, e.Name()))
		if err != nil {
			bad = append(bad, fmt.Errorf("kept allocation of %s counts as none: %w", name, err))
			continue
		}
		kept[name] = a
	}
	return kept, errors.Join(bad...)
}

// keep puts on disk what is not there yet. What cannot be written is tried again: an older allocation in its place would serve
// the wrong users after a restart without a bus.
func (l *Loop) keep() {
	var failed error
	for name, a := range l.unkept {
		if err := l.shelf.keep(name, a); err != nil {
			failed = err
			continue
		}
		delete(l.unkept, name)
	}
	switch {
	case failed == nil && !l.keepAt.IsZero():
		l.keepAt = time.Time{}
		l.cfg.Log.Info("allocations are kept again")
	case failed != nil:
		if l.keepAt.IsZero() {
			l.cfg.Log.Error("allocation is executed, but a restart without a bus would not know it; trying again", "err", failed)
		}
		l.keepAt = time.Now().Add(retryAfter)
	}
}

func readAllocation(path string) (alloc.Allocation, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return alloc.Allocation{}, err
	}
	return decodeAllocation(data)
}

func decodeAllocation(data []byte) (alloc.Allocation, error) {
	var p allocv1.Allocation
	if err := proto.Unmarshal(data, &p); err != nil {
		return alloc.Allocation{}, err
	}
	return alloc.FromProto(&p)
}
