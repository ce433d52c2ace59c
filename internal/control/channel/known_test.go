package channel

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/members"
)

// Who is on the channel is in the file within a second, and at the end; a damaged file is none.
func TestMembersAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := KnownIn(t.TempDir(), slog.New(slog.DiscardHandler))
		known := []members.Known{{Name: "s1", Role: control.Server, Address: netip.MustParseAddr("10.9.0.80"), Stamp: 1}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.keep(ctx, func() []members.Known { return known }) }()
		time.Sleep(keepEvery)
		synctest.Wait()
		if got := s.Load(); !slices.Equal(got, known) {
			t.Errorf("kept %+v", got)
		}
		known = []members.Known{{Name: "s1", Role: control.Server, Address: netip.MustParseAddr("10.9.0.80"), Silent: true, Stamp: 1}}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := s.Load(); !slices.Equal(got, known) {
			t.Errorf("kept at the end: %+v", got)
		}
		if err := os.WriteFile(s.path, []byte("["), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := s.Load(); got != nil {
			t.Errorf("of a damaged file: %+v", got)
		}
	})
}
