package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Load reads the TOML file at path over the defaults that into already holds. A missing file, a syntax error and a key that
// into does not have are errors that name the file and the place; durations are strings such as "500ms", plain numbers are
// refused.
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
	if bare := bareDurations(meta, reflect.TypeOf(into)); len(bare) > 0 {
		return fmt.Errorf("configuration %s: duration without a unit: %s: write it as \"10s\" or \"500ms\"", path, strings.Join(bare, ", "))
	}
	return nil
}

// bareDurations are the keys whose numbers were taken for nanoseconds, which nobody means.
func bareDurations(meta toml.MetaData, into reflect.Type) []string {
	var names []string
	for _, key := range meta.Keys() {
		kind := meta.Type(key...)
		if (kind == "Integer" || kind == "Float") && fieldType(into, key) == reflect.TypeFor[time.Duration]() {
			names = append(names, key.String())
		}
	}
	return names
}

// fieldType is the type of the field that the key was decoded into; nil: none that we know.
func fieldType(t reflect.Type, key toml.Key) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if len(key) == 0 || t.Kind() != reflect.Struct {
		return t
	}
	for _, f := range reflect.VisibleFields(t) {
		if name := cmp.Or(f.Tag.Get("toml"), f.Name); strings.EqualFold(name, key[0]) {
			return fieldType(f.Type, key[1:])
		}
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
