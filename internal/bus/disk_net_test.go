package bus

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNetFullDisk (root: it mounts a small disk): while the disk is full writes fail and what is there can be read; when there
// is room again writes go on, without anybody's help.
func TestNetFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=12m"); err != nil {
		t.Fatalf("mount (as root?): %v", err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	told := make(chan string, 10)
	s := &testServer{t: t, cfg: ServerConfig{
		Listen: "127.0.0.1:0", DataDir: filepath.Join(disk, "bus"),
		Log: slog.New(slog.NewTextHandler(logLines(func(line string) { told <- line }), &slog.HandlerOptions{Level: slog.LevelError})),
	}}
	srv := NewServer(s.cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	<-srv.Ready()
	s.cfg.Listen = srv.cfg.Listen
	b := s.connect("admin").Bucket(BucketConfig{Name: BucketServices})
	put := func(key string) error {
		short, stop := context.WithTimeout(ctx, 500*time.Millisecond)
		defer stop()
		_, err := b.Put(short, key, make([]byte, 20000))
		return err
	}
	if err := put("old"); err != nil {
		t.Fatal(err)
	}
	fill := filepath.Join(disk, "fill")
	if err := os.WriteFile(fill, make([]byte, 64<<20), 0o600); err == nil {
		t.Fatal("the disk is larger than it should be")
	}
	if put("new") == nil {
		t.Fatal("written to a full disk")
	}
	if line := <-told; !strings.Contains(line, "no space left on device") {
		t.Errorf("the log does not say that the disk is full: %s", line)
	}
	if e, err := b.Get(ctx, "old"); err != nil || len(e.Value) != 20000 {
		t.Errorf("read while the disk is full: %d bytes, %v", len(e.Value), err)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := put("new")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing is written though there is room again: %v", err)
		}
		<-time.After(50 * time.Millisecond)
	}
	if e, err := b.Get(ctx, "old"); err != nil || len(e.Value) != 20000 {
		t.Errorf("read after that: %d bytes, %v", len(e.Value), err)
	}
}
