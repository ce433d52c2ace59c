package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ownCluster are servers of `manycast bus`, each of which can be ended and started again.
type ownCluster struct {
	t     *testing.T
	cfg   []ServerConfig
	ends  []func()
	creds string
}

func newOwnCluster(t *testing.T, n int) *ownCluster {
	t.Helper()
	c := &ownCluster{t: t, creds: t.TempDir(), ends: make([]func(), n)}
	if made, err := MakeCredentials(c.creds); err != nil || len(made) != len(roles())+1 {
		t.Fatalf("made %v: %v", made, err)
	}
	if made, err := MakeCredentials(c.creds); err != nil || len(made) != 0 {
		t.Fatalf("made again %v: %v", made, err)
	}
	ports := freePorts(t, 2*n)
	for i := range n {
		cfg := ServerConfig{Listen: fmt.Sprintf("127.0.0.1:%d", ports[i]), DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
		if out, err := exec.Command("cp", "-a", filepath.Join(c.creds, "creds"), cfg.DataDir).CombinedOutput(); err != nil {
			t.Fatalf("copy creds: %v: %s", err, out)
		}
		for j := range n {
			address := fmt.Sprintf("127.0.0.1:%d", ports[n+j])
			if i == j {
				cfg.Cluster.Listen = address
			} else {
				cfg.Cluster.Peers = append(cfg.Cluster.Peers, address)
			}
		}
		c.cfg = append(c.cfg, cfg)
	}
	return c
}

func (c *ownCluster) start(i int) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	s := NewServer(c.cfg[i])
	go func() { ended <- s.Run(ctx) }()
	c.ends[i] = func() {
		c.ends[i] = func() {}
		cancel()
		if err := <-ended; err != nil {
			c.t.Errorf("server %d: %v", i, err)
		}
	}
	c.t.Cleanup(func() { c.ends[i]() })
}

func (c *ownCluster) urls() (urls []string) {
	for _, cfg := range c.cfg {
		urls = append(urls, "nats://"+cfg.Listen)
	}
	return urls
}

// TestOwnClusterLosesServers: with one of three servers gone everything goes on; with two nothing can be written, and what was
// written is there when they are back.
func TestOwnClusterLosesServers(t *testing.T) {
	c := newOwnCluster(t, 3)
	for i := range c.cfg {
		c.start(i)
	}
	director := connectTo(t, c.urls(), c.creds, "director")
	b := director.Bucket(BucketConfig{Name: BucketAllocations})
	put := func(value string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := b.Put(ctx, "web", []byte(value))
			return err
		}
	}
	eventually(t, put("1"))
	w := b.Watch(t.Context())
	watched(t, w, "1")

	c.ends[0]()
	eventually(t, put("2"))
	watched(t, w, "2")

	c.ends[1]()
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := put("lost")(ctx); err == nil {
			t.Fatal("written without a quorum")
		}
		cancel()
	}
	c.start(0)
	c.start(1)
	eventually(t, put("3"))
	watched(t, w, "3")
	admin := connectTo(t, c.urls(), c.creds, "admin")
	eventually(t, func(ctx context.Context) error {
		s, err := admin.js.Stream(ctx, streamPrefix+BucketAllocations)
		if err == nil && s.CachedInfo().Config.Replicas != 3 {
			err = fmt.Errorf("%d replicas", s.CachedInfo().Config.Replicas)
		}
		return err
	})
}

// TestClusterIsReachedByTheGateAlone: the port that the library listens on lets nobody in, whatever credentials they have.
func TestClusterIsReachedByTheGateAlone(t *testing.T) {
	c := newOwnCluster(t, 3)
	s := NewServer(c.cfg[0])
	users, _, err := s.users()
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.options(users)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	go ns.Start()
	defer ns.WaitForShutdown()
	defer ns.Shutdown()
	if !ns.ReadyForConnections(10 * time.Second) {
		t.Fatal("not ready")
	}
	conn, err := Connect(Config{URLs: []string{ns.ClientURL()}, Credentials: CredentialsPath(c.creds, "admin"), Name: "around", Log: s.cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := conn.WaitConnected(ctx); !errors.Is(err, ErrAway) && !errors.Is(err, ErrDenied) {
		t.Fatalf("connected around the gate: %v", err)
	}
}

func TestClusterSaysWhatIsWrong(t *testing.T) {
	tests := []struct {
		cluster Cluster
		creds   bool
		want    string
	}{
		{Cluster{Listen: "127.0.0.1:6222"}, true, "want 3 or 5"},
		{Cluster{Listen: "127.0.0.1:6222", Peers: []string{"127.0.0.1:6223"}}, true, "want 3 or 5"},
		{Cluster{Listen: "127.0.0.1:6222", Peers: []string{"127.0.0.1:6223", "127.0.0.1:6222"}}, true, "this server itself"},
		{Cluster{Listen: "127.0.0.1", Peers: []string{"127.0.0.1:6223", "127.0.0.1:6224"}}, true, "want host:port"},
		{Cluster{Listen: "127.0.0.1:6222", Peers: []string{"127.0.0.1:0", "127.0.0.1:6224"}}, true, "want host:port"},
		{Cluster{Listen: "127.0.0.1:6222", Peers: []string{"127.0.0.1:6223", "127.0.0.1:6224"}}, false, "manycast bus credentials"},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		if tt.creds {
			if _, err := MakeCredentials(dir); err != nil {
				t.Fatal(err)
			}
		}
		err := NewServer(ServerConfig{Listen: "127.0.0.1:0", DataDir: dir, Cluster: tt.cluster, Log: slog.New(slog.DiscardHandler)}).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.cluster, err, tt.want)
		}
	}
}
