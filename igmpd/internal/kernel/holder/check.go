package holder

import (
	"fmt"
	"os"
	"path/filepath"
)

// pathMax is how long the path of a unix socket may be, see unix(7).
const pathMax = 107

// Check says why there cannot be a socket at path.
func Check(path string) error {
	if len(path) > pathMax {
		return fmt.Errorf("holder socket %s: a path of %d bytes, at most %d: name a shorter one with --socket", path, len(path), pathMax)
	}
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("holder socket: %w: make the directory, or name another socket with --socket", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("holder socket: %s is no directory: name another socket with --socket", dir)
	}
	return nil
}
