package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/BurntSushi/toml"
)

// Load reads the TOML file at path over the defaults that into already holds. A missing file, a syntax error and a key that
// into does not have are errors that name the file and the place; durations are strings such as "500ms".
func Load(path string, into any) error {
	meta, err := toml.DecodeFile(path, into)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("configuration %s does not exist: name another with --config", path)
	}
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, describe(err))
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		names := make([]string, len(unknown))
		for i, key := range unknown {
			names[i] = key.String()
		}
		return fmt.Errorf("configuration %s: unknown key %s: see the reference file for the keys there are", path, strings.Join(names, ", "))
	}
	return nil
}

// describe keeps the line of a syntax error and its message in one line.
func describe(err error) error {
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("line %d: %s", parse.Position.Line, parse.Message)
	}
	return err
}
