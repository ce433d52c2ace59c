package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/internal/wholefile"
)

// Loss is when a server ceased to own users of a service: connections that it keeps of them end by that.
type Loss struct {
	Until epoch.Epoch // the last in which it owned them
	At    time.Time
}

const (
	lossesSuffix = ".losses"
	lossesMax    = 1 << 20 // bytes of a file
)

// KeepLosses puts on disk what a server has lost of a service; nothing: nothing is left there.
func (s Shelf) KeepLosses(name string, losses []Loss) error {
	path := filepath.Join(s.Dir, name+lossesSuffix)
	var err error
	if len(losses) == 0 {
		if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		var data []byte
		if data, err = json.Marshal(losses); err == nil {
			err = wholefile.Write(path, data)
		}
	}
	if err != nil {
		return fmt.Errorf("keep losses of %s: %w", name, err)
	}
	return nil
}

// Losses returns them by service, and what cannot be read as errors beside them.
func (s Shelf) Losses() (map[string][]Loss, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("kept losses: %w", err)
	}
	kept := map[string][]Loss{}
	var bad []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), lossesSuffix)
		if !ok || service.CheckName(name) != nil {
			continue
		}
		var losses []Loss
		data, err := readAtMost(filepath.Join(s.Dir, e.Name()), lossesMax)
		if err == nil {
			err = json.Unmarshal(data, &losses)
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("kept losses of %s count as none: %w", name, err))
			continue
		}
		kept[name] = losses
	}
	return kept, errors.Join(bad...)
}

func readAtMost(path string, size int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > size {
		return nil, fmt.Errorf("%d bytes, at most %d are expected", info.Size(), size)
	}
	return os.ReadFile(path)
}
