package store_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/store"
)

func startBus(t *testing.T, cfg bus.ServerConfig) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, ended := bus.NewServer(cfg), make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestServicesSurviveABusThatForgot: a bus that comes back without its data takes no service away; a deletion does.
func TestServicesSurviveABusThatForgot(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	cfg := bus.ServerConfig{Listen: free.Addr().String(), DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	stop := startBus(t, cfg)
	c, err := bus.Connect(bus.Config{
		URLs: []string{"nats://" + cfg.Listen}, Credentials: bus.CredentialsPath(cfg.DataDir, "admin"), Name: "test", Log: cfg.Log,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	bucket := store.OnBus(c).Services
	put := func(name, rest string) {
		t.Helper()
		all, err := service.Parse([]byte("name: " + name + "\nports: [tcp/80]\npolicy: equal\n" + rest))
		if err != nil {
			t.Fatal(err)
		}
		data, err := proto.Marshal(service.ToProto(all[0]))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bucket.Put(ctx, name, data); err != nil {
			t.Fatal(err)
		}
	}
	put("web", "vip: 192.0.2.80\ngroup: 239.80.80.80\n")
	put("old", "vip: 192.0.2.81\ngroup: 239.80.80.81\n")
	services := store.WatchServices(ctx, bucket, filepath.Join(t.TempDir(), "services.yaml"), cfg.Log)
	until := func(n int, names ...string) {
		t.Helper()
		for all := range services {
			if len(all) == n {
				for i, name := range names {
					if all[i].Name != name {
						t.Fatalf("services %v", all)
					}
				}
				return
			}
			if len(all) < n {
				t.Fatalf("services %v, want %d", all, n)
			}
		}
		t.Fatal("no more services")
	}
	until(2, "old", "web")
	if err := bucket.Delete(ctx, "old"); err != nil {
		t.Fatal(err)
	}
	until(1, "web")

	stop()
	for _, name := range []string{"jetstream", "kept.json"} { // an operator begins anew
		if err := os.RemoveAll(filepath.Join(cfg.DataDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	defer startBus(t, cfg)()
	until(1, "web")
}
