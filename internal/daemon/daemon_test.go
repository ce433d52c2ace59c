package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	type config struct {
		Name  string        `toml:"name"`
		Every time.Duration `toml:"every"`
		Log   struct {
			Level string `toml:"level"`
		} `toml:"log"`
		Zones []struct {
			TTL time.Duration `toml:"ttl"`
		} `toml:"zones"`
	}
	tests := []struct{ name, text, wantErr string }{
		{"good", "every = \"500ms\"\n[log]\nlevel = \"warn\"\n", ""},
		{"unknown key", "nmae = \"x\"\n", "unknown key nmae"},
		{"unknown in section", "[log]\nlvl = \"x\"\n", "unknown key log.lvl"},
		{"syntax", "name = \n", "line 1"},
		{"duration without a unit", "every = 10\n", "without a unit: every"},
		{"durations in a list", "[[zones]]\nttl = \"1s\"\n[[zones]]\nttl = 1.5\n", "zones.ttl"},
		{"type", "every = \"soon\"\n", "soon"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.toml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			c := config{Name: "default"}
			err := Load(path, &c)
			if tt.wantErr == "" {
				if err != nil || c.Name != "default" || c.Every != 500*time.Millisecond || c.Log.Level != "warn" {
					t.Fatalf("Load: %v, %+v", err, c)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) || !strings.Contains(err.Error(), path) {
				t.Fatalf("error %v, want one with %q and the path", err, tt.wantErr)
			}
		})
	}
	if err := Load(filepath.Join(t.TempDir(), "none"), &config{}); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Fatalf("missing file: %v", err)
	}
}

func TestLockKeepsASecondDaemonOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("second lock: %v", err)
	}
	first.Close()
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestRunEndsAllTasksOnTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	other := make(chan struct{})
	err := Run(t.Context(), slog.New(slog.DiscardHandler),
		Func("one", func(ctx context.Context) error { <-ctx.Done(); close(other); return ctx.Err() }),
		Func("two", func(context.Context) error { return broken }),
	)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "two") {
		t.Fatalf("Run: %v", err)
	}
	<-other
}

// TestRunEndsOnACancelledTask: a task that gives up something of its own is no clean stop.
func TestRunEndsOnACancelledTask(t *testing.T) {
	err := Run(t.Context(), slog.New(slog.DiscardHandler), Func("one", func(context.Context) error { return context.Canceled }))
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Run: %v", err)
	}
}
