package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/internal/wholefile"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// Shelf keeps allocations in a directory, a file each, for a restart without a bus.
type Shelf struct{ Dir string }

const shelfSuffix = ".allocation"

// Keep puts a service's allocation on disk.
func (s Shelf) Keep(name string, a alloc.Allocation) error {
	data, err := proto.Marshal(alloc.ToProto(name, a))
	if err != nil {
		return fmt.Errorf("keep allocation of %s: %w", name, err)
	}
	if err := wholefile.Write(filepath.Join(s.Dir, name+shelfSuffix), data); err != nil {
		return fmt.Errorf("keep allocation of %s: %w", name, err)
	}
	return nil
}

// Load returns what was kept by service, and what cannot be read as errors beside it.
func (s Shelf) Load() (map[string]alloc.Allocation, error) {
	entries, err := os.ReadDir(s.Dir)
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
		a, err := readAllocation(filepath.Join(s.Dir, e.Name()))
		if err != nil {
			bad = append(bad, fmt.Errorf("kept allocation of %s counts as none: %w", name, err))
			continue
		}
		kept[name] = a
	}
	return kept, errors.Join(bad...)
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
