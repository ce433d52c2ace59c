// Package beside remembers which daemons of others, that go on without this one, may have something of ours: a gobgpd has paths, a bfdd has peers. Where a
// configuration has another one, or none, the one before is to forget us.
package beside

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/wholefile"
)

// Kind is what kind of daemon one is.
type Kind string

// The kinds.
const (
	Gobgpd Kind = "gobgpd"
	BFDD   Kind = "bfdd"
)

// Place is a daemon: its kind, and where it answers.
type Place struct {
	Kind Kind   `json:"kind"`
	At   string `json:"at"`
}

// within is how long one may take to forget us.
const within = 3 * time.Second

// Settle has daemons forget us that file names and now does not, and notes in the file those that may have something of ours from now on. It is called before these are told
// anything: one may have two names. One that does not answer stays in the file, for the next start.
func Settle(ctx context.Context, file string, now []Place, forget func(context.Context, Place) error, log *slog.Logger) error {
	before, err := load(file)
	if err != nil {
		return err
	}
	keep := slices.Clone(now)
	for _, p := range left(before, now) {
		if err := once(ctx, p, forget); err != nil {
			log.Error("a daemon that is not in the configuration any more keeps what it was told; it is asked again at the next start", "kind", p.Kind, "at", p.At, "err", err, "noted", file)
			keep = append(keep, p)
			continue
		}
		log.Info("a daemon that is not in the configuration any more has nothing of ours", "kind", p.Kind, "at", p.At)
	}
	if len(keep) == 0 && len(before) == 0 {
		return nil
	}
	return save(file, keep)
}

func once(ctx context.Context, p Place, forget func(context.Context, Place) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return forget(ctx, p)
}

// left are those of before that now has not.
func left(before, now []Place) (out []Place) {
	for _, p := range before {
		if !slices.Contains(now, p) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func load(file string) (all []Place, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("which daemons may have something of ours: %s: %w (remove the file to leave them alone)", file, err)
	}
	return all, nil
}

func save(file string, all []Place) error {
	if len(all) == 0 {
		return os.Remove(file)
	}
	text, err := json.Marshal(all)
	if err == nil {
		err = wholefile.Write(file, text)
	}
	if err != nil {
		return fmt.Errorf("note which daemons may have something of ours: %w", err)
	}
	return nil
}
