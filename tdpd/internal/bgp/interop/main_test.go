package interop

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/tdpd/internal/bgp/server"
)

// TestMain: with "speaker --socket PATH" the test binary is what `tdpd speaker` is.
func TestMain(m *testing.M) {
	if len(os.Args) != 4 || os.Args[1] != "speaker" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	if err := server.Run(ctx, os.Args[3], log); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
