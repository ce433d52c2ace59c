package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/manycast/manycast/internal/wholefile"
)

// ReadTerm reads the highest term seen from a file that WriteTerm wrote; 0 where there is none.
func ReadTerm(path string) (uint64, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("highest term: %w", err)
	}
	term, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("highest term: %s is damaged: write the term of `manycast allocation show` into it: %w", path, err)
	}
	return term, nil
}

// WriteTerm keeps the highest term seen.
func WriteTerm(path string, term uint64) error {
	if err := wholefile.Write(path, strconv.AppendUint(nil, term, 10)); err != nil {
		return fmt.Errorf("highest term: %w", err)
	}
	return nil
}
