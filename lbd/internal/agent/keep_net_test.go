package agent

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/store"
)

// TestNetFullDiskKeepsTheOldAllocation (root: it mounts a small disk): allocations are executed while none can be kept, what was
// kept before stays whole, the log names the disk, and the newest is kept when there is room again.
func TestNetFullDiskKeepsTheOldAllocation(t *testing.T) {
	disk := testnet.NewDisk(t)
	buckets, plane, log := store.NewMemories(), dataplane.NewFakeAgent(), &logged{}
	l := NewLoop(Config{
		Name: "s1", Serve: []string{"web"}, StateDir: disk.Dir, Services: store.Static([]service.Service{web}),
		Plane: plane, Joiner: brokenJoiner{make(chan error)}, Buckets: &buckets, Announcer: announce.NewFake(), Keep: true,
		Health: func(ctx context.Context, report func(bool, error)) { report(true, nil); <-ctx.Done() },
		Close:  dataplane.EndConnections, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	commit := func(a alloc.Allocation) {
		t.Helper()
		data, err := store.EncodeState("web", store.State{Committed: a})
		if err == nil {
			_, err = buckets.Allocations.Put(t.Context(), "web", data)
		}
		if err != nil {
			t.Fatal(err)
		}
		testnet.Eventually(t, 5*time.Second, func() bool {
			current := plane.Current()
			return len(current) == 1 && current[0].Accept.Contains(even) == (a.Owner[0] == s1) && current[0].Accept.Contains(odd) == (a.Owner[1] == s1)
		}, "the allocation executed")
	}
	kept := func(number uint64) func() bool {
		return func() bool {
			all, err := store.Shelf{Dir: disk.Dir}.Load()
			return err == nil && all["web"].Epoch.Number == number
		}
	}
	commit(allocation(1, s1, s2))
	testnet.Eventually(t, 5*time.Second, kept(1), "the first allocation kept")
	disk.Fill()
	commit(allocation(2, s2, s1))
	testnet.Eventually(t, 5*time.Second, func() bool { return log.has("no space left on device") && log.has(disk.Dir) }, "a word of the disk")
	if !kept(1)() {
		t.Error("what was kept is lost")
	}
	disk.Free()
	testnet.Eventually(t, 5*time.Second, kept(2), "the newest allocation kept")
	testnet.Eventually(t, 5*time.Second, func() bool { return log.has("kept again") }, "a word of it")
}

// logged is a log's text.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func (l *logged) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
