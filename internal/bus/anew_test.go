package bus

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// logLines gets a log line by line.
type logLines func(line string)

func (l logLines) Write(p []byte) (int, error) {
	l(string(p))
	return len(p), nil
}

// obstruct makes a directory where the stream's next block will be.
func obstruct(t *testing.T, stream string) string {
	blocks, err := blocksOf(stream)
	if err != nil || len(blocks) == 0 {
		t.Errorf("blocks %v, %v", blocks, err)
		return ""
	}
	for next := blocks[len(blocks)-1] + 1; ; next++ { // the server may be ahead
		err := os.Mkdir(blockPath(stream, next), 0o700)
		if err == nil {
			return blockPath(stream, next)
		}
		if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
			return ""
		}
	}
}

// TestFailedWriteWithRoom: a stream that the server gives up, though the disk is not full, takes writes again without anybody's
// help, what it acknowledged is there, and the log says what failed: an error only where a new start did not help.
func TestFailedWriteWithRoom(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	s.end()
	stream := filepath.Join(storeDir(s.cfg.DataDir), streamPrefix+BucketServices)
	var mu sync.Mutex
	var told []string
	var obstacle string // a directory where the next block will be
	failures := 0
	s.cfg.Log = slog.New(slog.NewTextHandler(logLines(func(line string) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case strings.Contains(line, "though there is room"):
			told = append(told, line)
		case strings.Contains(line, `msg="bus serves"`) && failures < 2:
			obstacle = obstruct(t, stream)
		case strings.Contains(line, "KV_services] Critical write error"):
			failures++
			_ = os.Remove(obstacle) // the server may have done so
		}
	}), nil))
	s.start()
	services := s.connect("admin").Bucket(BucketConfig{Name: BucketServices})
	acknowledged := map[string]int{}
	put := func(n int) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		key := "web" + strconv.Itoa(n%40)
		value := append(strconv.AppendInt(nil, int64(n), 10), bytes.Repeat([]byte("."), 50_000)...)
		_, err := services.Put(ctx, key, value)
		if err == nil {
			acknowledged[key] = n
		}
		return err == nil
	}
	for n, written := 1, 0; written < 100; n++ { // a block is 4 MiB
		ok := put(n)
		mu.Lock()
		if ok && len(told) == 2 {
			written++
		}
		mu.Unlock()
	}
	for key, want := range acknowledged {
		e, err := services.Get(t.Context(), key)
		got, _ := strconv.Atoi(string(bytes.TrimRight(e.Value, ".")))
		if err != nil || got < want {
			t.Errorf("%s is %d, %v: %d was acknowledged", key, got, err, want)
		}
	}
	if blocks, err := blocksOf(stream); err != nil || blocks[len(blocks)-1] < 2 {
		t.Errorf("blocks %v, %v: no new one was needed", blocks, err)
	}
	for i, level := range []string{"WARN", "ERROR"} {
		if !strings.Contains(told[i], "level="+level) || !strings.Contains(told[i], "is a directory") {
			t.Errorf("want level %s and why: %s", level, told[i])
		}
	}
	s.end()
	s.start() // and that is no damage
}
