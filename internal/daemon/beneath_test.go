package daemon_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/daemon"
)

func TestBeneath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		base := daemon.Func("base", func(ctx context.Context) error {
			<-ctx.Done()
			ended = append(ended, "base")
			return nil
		})
		above := daemon.Func("above", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second) // base is there still
			ended = append(ended, "above")
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := daemon.Beneath(base, above).Run(ctx); err != nil {
			t.Error(err)
		}
		if !slices.Equal(ended, []string{"above", "base"}) {
			t.Errorf("ended in order %q", ended)
		}
	})
}

func TestBeneathFails(t *testing.T) {
	broken := errors.New("broken")
	base := daemon.Func("base", func(context.Context) error { return broken })
	above := daemon.Func("above", func(ctx context.Context) error { <-ctx.Done(); return nil })
	if err := daemon.Beneath(base, above).Run(t.Context()); !errors.Is(err, broken) || !strings.Contains(err.Error(), "base") {
		t.Error(err)
	}
}
