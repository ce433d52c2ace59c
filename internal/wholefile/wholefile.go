// Package wholefile replaces small files so that a crash leaves the old one or the new one.
package wholefile

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Write makes data the content of the file at path, 0600 where it is new. When it returns nil, the file outlives a loss of power; when it
// returns an error, the file is as it was.
func Write(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(dir)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
