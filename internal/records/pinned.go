package records

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/record"
)

// pinnedTTL is how soon a change of the files is seen.
const pinnedTTL = 5 * time.Second

// Pinned has the records of files that `manycast group export` wrote. They are read again when they are asked for, so a
// change needs no restart. It may be used by several goroutines.
type Pinned struct {
	paths []string
	now   func() time.Time

	mu      sync.Mutex
	read    time.Time
	records map[netip.Addr]record.Record
}

// NewPinned takes files and directories, whose files *.yaml count.
func NewPinned(paths []string, now func() time.Time) *Pinned { return &Pinned{paths: paths, now: now} }

// Fetch implements Source.
func (p *Pinned) Fetch(_ context.Context, address netip.Addr) (record.Record, time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.now(); p.records == nil || now.Sub(p.read).Abs() >= time.Second {
		records, err := p.load()
		if err != nil {
			return record.Record{}, 0, err
		}
		p.records, p.read = records, now
	}
	r, ok := p.records[address]
	if !ok {
		return record.Record{}, 0, record.ErrNone
	}
	return r, pinnedTTL, nil
}

// Check reads all files.
func (p *Pinned) Check() error {
	_, err := p.load()
	return err
}

func (p *Pinned) load() (map[netip.Addr]record.Record, error) {
	all := make(map[netip.Addr]record.Record)
	for _, path := range p.paths {
		files, err := filesOf(path)
		if err != nil {
			return nil, fmt.Errorf("pinned records: %w", err)
		}
		for _, file := range files {
			records, err := record.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("pinned records: %w", err)
			}
			for _, r := range records {
				if other, twice := all[r.Address]; twice && !other.Equal(r) {
					return nil, fmt.Errorf("pinned records: %s: %v has another record in another file", file, r.Address)
				}
				all[r.Address] = r
			}
		}
	}
	return all, nil
}

func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".yaml") && !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	return files, nil
}
