package bus

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// filledStore is the directory of a bus with a few entries, stopped.
func filledStore(t *testing.T) *testServer {
	t.Helper()
	s := newTestServer(t)
	b := s.connect("admin").Bucket(BucketConfig{Name: BucketServices})
	for i := range 5 {
		if _, err := b.Put(t.Context(), fmt.Sprint("web", i), []byte("a service")); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Delete(t.Context(), "web0"); err != nil {
		t.Fatal(err)
	}
	s.end()
	return s
}

// refused starts the bus and returns why it does not serve.
func (s *testServer) refused() string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	srv := NewServer(s.cfg)
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
		cancel()
		<-done
		s.t.Fatal("it serves a damaged store")
	case err := <-done:
		if err == nil {
			s.t.Fatal("it ended without an error")
		}
		return err.Error()
	}
	return ""
}

// files are a directory's files by path.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func overwrite(t *testing.T, path string, at int, with string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(with), int64(at)); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedStoreIsRefused: it is named, the way out is named, nothing is changed, whether the bus was stopped or killed before.
func TestDamagedStoreIsRefused(t *testing.T) {
	t.Parallel()
	remove := func(t *testing.T, path string) {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, streams string)
		want   string
	}{
		"records": {func(t *testing.T, streams string) {
			overwrite(t, filepath.Join(streams, "KV_services/msgs/1.blk"), 40, "fifteen bytes..")
		}, "KV_services/msgs/1.blk"},
		"last record": {func(t *testing.T, streams string) {
			path := filepath.Join(streams, "KV_services/msgs/1.blk")
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, info.Size()-3); err != nil {
				t.Fatal(err)
			}
		}, "KV_services"},
		"block": {func(t *testing.T, streams string) {
			remove(t, filepath.Join(streams, "KV_services/msgs/1.blk"))
		}, "KV_services"},
		"configuration": {func(t *testing.T, streams string) {
			overwrite(t, filepath.Join(streams, "KV_services/meta.inf"), 10, "?")
		}, "KV_services/meta.inf"},
		"checksum": {func(t *testing.T, streams string) {
			remove(t, filepath.Join(streams, "KV_services/meta.sum"))
		}, "KV_services/meta.sum"},
		"stream": {func(t *testing.T, streams string) {
			remove(t, filepath.Join(streams, "KV_services"))
		}, "KV_services: is missing"},
		"all": {func(t *testing.T, streams string) {
			remove(t, filepath.Join(streams, "../../../../jetstream"))
		}, "is missing"},
		"list": {func(t *testing.T, streams string) {
			overwrite(t, filepath.Join(streams, "../../../..", keptName), 0, "?")
		}, keptName},
	} {
		t.Run(name, func(t *testing.T) {
			s := filledStore(t)
			if k, err := readKept(s.cfg.DataDir); err != nil || k.Sums == nil {
				t.Fatalf("kept %+v, %v", k, err)
			} else if k.Sums = nil; name != "list" { // as after a kill
				if err := k.write(s.cfg.DataDir); err != nil {
					t.Fatal(err)
				}
			}
			c.damage(t, storeDir(s.cfg.DataDir))
			before := files(t, s.cfg.DataDir)
			got := s.refused()
			for _, want := range []string{s.cfg.DataDir + " is damaged", c.want, "backup", "begin anew"} {
				if !strings.Contains(got, want) {
					t.Errorf("%s\nhas no %q", got, want)
				}
			}
			if !maps.Equal(before, files(t, s.cfg.DataDir)) {
				t.Error("files were changed")
			}
		})
	}
}

// TestWayOutOfDamage: what the error says can be done works, and terms go on.
func TestWayOutOfDamage(t *testing.T) {
	t.Parallel()
	s := filledStore(t)
	backup := t.TempDir()
	move := func(from, to string) {
		t.Helper()
		for _, name := range []string{"jetstream", keptName} {
			if err := os.Rename(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	lease := func() uint64 {
		t.Helper()
		b := s.connect("director").Bucket(BucketConfig{Name: BucketLeases})
		revision, err := b.Create(t.Context(), fmt.Sprint("director", time.Now().UnixNano()), []byte("d1"))
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	services := func(want int) {
		t.Helper()
		all, err := s.connect("admin").Bucket(BucketConfig{Name: BucketServices}).List(t.Context())
		if err != nil || len(all) != want {
			t.Errorf("%d services, %v, want %d", len(all), err, want)
		}
	}
	if err := os.CopyFS(backup, os.DirFS(s.cfg.DataDir)); err != nil {
		t.Fatal(err)
	}
	s.start()
	var highest uint64
	for range 20 {
		highest = lease()
	}
	s.end()
	overwrite(t, filepath.Join(storeDir(s.cfg.DataDir), "KV_services/msgs/1.blk"), 40, "fifteen bytes..")
	s.refused()

	move(s.cfg.DataDir, t.TempDir())
	move(backup, s.cfg.DataDir)
	s.start()
	services(4)
	if term := lease(); term <= highest {
		t.Errorf("term %d of the backup's, %d were there", term, highest)
	} else {
		highest = term
	}
	s.end()

	move(s.cfg.DataDir, t.TempDir())
	s.start()
	services(0)
	if term := lease(); term <= highest {
		t.Errorf("term %d of a new bus, %d were there", term, highest)
	}
	s.end()
	s.start() // and that is no damage
}

// TestEveryByteCounts: after a clean stop no byte of a block can change unseen; after a kill none of a record that its checksum
// covers.
func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	s := filledStore(t)
	k, err := readKept(s.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkStore(s.cfg.DataDir, k); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(storeDir(s.cfg.DataDir), "KV_services/msgs/1.blk")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	missed := 0
	for at := range whole {
		changed := append([]byte(nil), whole...)
		changed[at] ^= 0x04
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if checkStore(s.cfg.DataDir, k) == nil {
			t.Errorf("byte %d changed unseen after a stop", at)
		}
		if checkStore(s.cfg.DataDir, kept{Last: k.Last}) == nil {
			missed++
		}
	}
	// A record's checksum covers subject and value as one, but not where the one ends and the other begins.
	if records := 6; missed > 2*records {
		t.Errorf("%d of %d bytes changed unseen after a kill", missed, len(whole))
	}
}

// TestFirstStartCutShort: a bus killed while it makes its buckets the first time starts.
func TestFirstStartCutShort(t *testing.T) {
	s := newTestServer(t)
	s.end()
	if err := os.Remove(filepath.Join(s.cfg.DataDir, keptName)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(storeDir(s.cfg.DataDir), "KV_moves", "meta.sum")); err != nil {
		t.Fatal(err)
	}
	s.start()
	if _, err := s.connect("admin").Bucket(BucketConfig{Name: BucketMoves}).Put(t.Context(), "web", []byte("1")); err != nil {
		t.Error(err)
	}
	s.end()
	s.start()
}

// TestChecksAreQuick: a large registry takes no noticeable time to look through.
func TestChecksAreQuick(t *testing.T) {
	s := newTestServer(t)
	b := s.connect("admin").Bucket(BucketConfig{Name: BucketServices})
	for i := range 500 {
		if _, err := b.Put(t.Context(), fmt.Sprint("s", i), make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	s.end()
	k, err := readKept(s.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := checkStore(s.cfg.DataDir, k); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("5 MB took %v", took)
	}
}

func FuzzBlock(f *testing.F) {
	f.Add([]byte("\x22\x00\x00\x00"), true)
	f.Add(make([]byte, 100), false)
	f.Fuzz(func(t *testing.T, data []byte, last bool) {
		if seq, err := checkBlock(data, "KV_services", 1, last); err == nil && seq > 1<<62 {
			t.Errorf("sequence %d", seq)
		}
	})
}

// busProcess is set in the child process of TestKilledBusIsNotDamaged to the address to serve on and the directory.
const busProcess = "MANYCAST_TEST_BUS"

func TestMain(m *testing.M) {
	if listen, dir, ok := strings.Cut(os.Getenv(busProcess), " "); ok {
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
		if err := NewServer(ServerConfig{Listen: listen, DataDir: dir, Log: log}).Run(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}
