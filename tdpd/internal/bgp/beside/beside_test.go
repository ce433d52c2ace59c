package beside

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSettle: over starts with one configuration after another, each daemon that is left is asked to forget us once it answers, and no other one.
func TestSettle(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "beside")
	one, two, bfdd := Place{Gobgpd, "127.0.0.1:50051"}, Place{Gobgpd, "127.0.0.1:50052"}, Place{BFDD, "/run/frr/bfdd.vty"}
	for _, start := range []struct {
		name  string
		now   []Place
		away  bool
		asked []Place
	}{
		{name: "nothing ever"},
		{name: "first", now: []Place{one, bfdd}},
		{name: "the same", now: []Place{one, bfdd}},
		{name: "another api", now: []Place{two, bfdd}, asked: []Place{one}},
		{name: "no bfd any more, and bfdd is away", now: []Place{two}, away: true, asked: []Place{bfdd}},
		{name: "it is back", now: []Place{two}, asked: []Place{bfdd}},
		{name: "no BGP any more", asked: []Place{two}},
		{name: "still none"},
	} {
		var asked []Place
		err := Settle(t.Context(), file, start.now, func(_ context.Context, p Place) error {
			asked = append(asked, p)
			if start.away {
				return errors.New("nobody answers")
			}
			return nil
		}, slog.New(slog.DiscardHandler))
		if err != nil || !slices.Equal(asked, start.asked) {
			t.Errorf("%s: asked %v, want %v; %v", start.name, asked, start.asked, err)
		}
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is there though nobody has anything: %v", err)
	}
}

// TestSilent: a daemon that takes the question and does not answer holds up the start for a time, and no more.
func TestSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		file, log := filepath.Join(t.TempDir(), "beside"), &strings.Builder{}
		silent := func(ctx context.Context, _ Place) error { <-ctx.Done(); return ctx.Err() }
		_ = Settle(t.Context(), file, []Place{{Gobgpd, "a"}}, silent, slog.New(slog.DiscardHandler))
		begun := time.Now()
		if err := Settle(t.Context(), file, nil, silent, slog.New(slog.NewTextHandler(log, nil))); err != nil || time.Since(begun) != within || !strings.Contains(log.String(), "at=a") {
			t.Errorf("%v after %v: %s", err, time.Since(begun), log)
		}
	})
}

func TestBadFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "beside")
	if err := os.WriteFile(file, []byte("["), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Settle(t.Context(), file, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Error(err)
	}
}
