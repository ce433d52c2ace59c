package leader_test

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/internal/testnet"

	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/leader"
	"github.com/manycast/manycast/lbd/internal/store"
)

// TestNetFullDiskLeavesTheLeadToOthers (root: it mounts a small disk): a director that cannot keep a term on disk does not lead
// with it, says why, keeps the highest term that it knew, and leads when there is room again.
func TestNetFullDiskLeavesTheLeadToOthers(t *testing.T) {
	disk := testnet.NewDisk(t)
	file := filepath.Join(disk.Dir, "term")
	buckets, log := store.NewMemories(), &logged{}
	run := func() (stop func()) {
		l, err := leader.NewLoop(leader.Config{
			Name: "d1", StateDir: disk.Dir, LeaseTTL: 200 * time.Millisecond, Buckets: buckets, Announcer: announce.NewFake(),
			Services: make(chan []service.Service), Log: slog.New(slog.NewTextHandler(log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		return sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	term := func() uint64 {
		n, err := store.ReadTerm(file)
		if err != nil {
			t.Error(err)
		}
		return n
	}
	stop := run()
	testnet.Eventually(t, 5*time.Second, func() bool { return log.count("msg=leads") == 1 }, "the first term")
	stop()
	first := term()

	disk.Fill()
	stop = run()
	defer stop()
	testnet.Eventually(t, 5*time.Second, func() bool { return log.count("no space left on device") > 0 }, "a word of the disk")
	if n := term(); n != first || first == 0 {
		t.Errorf("the highest term was %d and is %d", first, n)
	}
	disk.Free()
	testnet.Eventually(t, 5*time.Second, func() bool { return log.count("msg=leads") == 2 && term() > first }, "the next term")
}

// logged is a log's text.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}
