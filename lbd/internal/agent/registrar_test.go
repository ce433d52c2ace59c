package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/store"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// refusing is a bucket that takes nothing while it has a reason.
type refusing struct {
	store.Bucket
	why atomic.Pointer[error]
}

func (r *refusing) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	if why := r.why.Load(); why != nil {
		return 0, *why
	}
	return r.Bucket.Put(ctx, key, value)
}

// TestRegistrarWarnsOnce: what goes wrong twice a second is said once, and again when it is something else; then that it is over.
func TestRegistrarWarnsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, bucket := &logged{}, &refusing{Bucket: store.NewMemories().Servers}
		r := newRegistrar(bucket, &allocv1.Registration{Name: "s1", BootId: 1}, func(service.Service) bool { return true }, slog.New(slog.NewTextHandler(log, nil)))
		full, refused := errors.New("the store is full"), errors.New("not permitted")
		bucket.why.Store(&full)
		r.setServices([]service.Service{web})
		r.setHealthy(true)
		ctx, cancel := context.WithCancel(t.Context())
		go r.run(ctx, func(context.Context) bool { return true })
		for _, step := range []struct {
			why  *error
			want []string
		}{
			{&full, []string{"is full"}},
			{&refused, []string{"is full", "not permitted"}},
			{nil, []string{"is full", "not permitted", "registered again"}},
		} {
			bucket.why.Store(step.why)
			time.Sleep(time.Minute)
			synctest.Wait()
			lines := strings.Split(strings.TrimSpace(log.all()), "\n")
			if len(lines) != len(step.want) {
				t.Fatalf("said in a minute: %q, want %q", lines, step.want)
			}
			for i, want := range step.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("said %q, want %q", lines[i], want)
				}
			}
		}
		cancel()
	})
}
