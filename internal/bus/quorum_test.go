package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
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

func (c *ownCluster) start(i int) *Server {
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
	return s
}

func (c *ownCluster) urls() (urls []string) {
	for _, cfg := range c.cfg {
		urls = append(urls, "nats://"+cfg.Listen)
	}
	return urls
}

// putter writes values of one key.
func putter(b *Bucket) func(value string) func(context.Context) error {
	return func(value string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := b.Put(ctx, "web", []byte(value))
			return err
		}
	}
}

// TestOwnClusterLosesServers: with one of three servers gone everything goes on; with two nothing can be written, and what was
// written is there when they are back.
func TestOwnClusterLosesServers(t *testing.T) {
	t.Parallel()
	c := newOwnCluster(t, 3)
	for i := range c.cfg {
		c.start(i)
	}
	director := connectTo(t, c.urls(), c.creds, "director")
	b := director.Bucket(BucketConfig{Name: BucketAllocations})
	put := putter(b)
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

// TestServerThatLostItsStoreIsTheSame: servers that listen on all addresses are one cluster; one that has kept no more than its name and
// credentials gets everything from the others, and counts as it did.
func TestServerThatLostItsStoreIsTheSame(t *testing.T) {
	t.Parallel()
	c := newOwnCluster(t, 3)
	for i := range c.cfg {
		_, port, err := net.SplitHostPort(c.cfg[i].Cluster.Listen)
		if err != nil {
			t.Fatal(err)
		}
		c.cfg[i].Cluster.Listen = "0.0.0.0:" + port
		c.start(i)
	}
	director := connectTo(t, c.urls(), c.creds, "director")
	b := director.Bucket(BucketConfig{Name: BucketAllocations})
	put := putter(b)
	eventually(t, put("1"))
	c.ends[0]()
	before, err := serverName(c.cfg[0].DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(c.cfg[0].DataDir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	c.start(0)
	eventually(t, put("2"))
	admin := connectTo(t, c.urls(), c.creds, "admin")
	eventually(t, func(ctx context.Context) error { // it has caught up
		s, err := admin.js.Stream(ctx, streamPrefix+BucketAllocations)
		if err != nil {
			return err
		}
		cluster := s.CachedInfo().Cluster
		if len(cluster.Replicas) != 2 {
			return fmt.Errorf("%d replicas beside the leader", len(cluster.Replicas))
		}
		for _, r := range cluster.Replicas {
			if !r.Current || r.Offline {
				return fmt.Errorf("%s is not current", r.Name)
			}
		}
		return nil
	})
	c.ends[1]()
	eventually(t, put("3"))
	if after, err := serverName(c.cfg[0].DataDir); err != nil || after != before {
		t.Errorf("named %q, was %q: %v", after, before, err)
	}
}

// TestServerNames: made once, of what NATS can bear; another directory is another server.
func TestServerNames(t *testing.T) {
	dir := t.TempDir()
	first, err := serverName(dir)
	again, errAgain := serverName(dir)
	other, errOther := serverName(t.TempDir())
	if err := errors.Join(err, errAgain, errOther); err != nil || first == "" || first != again || first == other {
		t.Errorf("%q, again %q, another %q: %v", first, again, other, err)
	}
	for _, bad := range []string{"", "\n", "a b", "a.b"} {
		if err := os.WriteFile(filepath.Join(dir, nameFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if name, err := serverName(dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, nameFile)) {
			t.Errorf("%q: %q, %v", bad, name, err)
		}
	}
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

// TestReadyWithoutQuorumSaysSo: who waits for the bus is not kept waiting for other machines, and can see that it lacks them.
func TestReadyWithoutQuorumSaysSo(t *testing.T) {
	t.Parallel()
	c := newOwnCluster(t, 3)
	s := c.start(0)
	<-s.Ready()
	if state := s.State(); !strings.Contains(state, "no quorum") {
		t.Errorf("one of three is ready: %q", state)
	}
	c.start(1)
	c.start(2) // the first time all have to be there
	eventually(t, func(context.Context) error {
		if state := s.State(); state != "" {
			return errors.New(state)
		}
		return nil
	})
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
		{Cluster{Listen: "127.0.0.1:6222", Peers: []string{"127.0.0.1:6223", "127.0.0.1:6223"}}, true, "named twice"},
		{Cluster{Listen: "0.0.0.0:6222", Peers: []string{"0.0.0.0:6223", "127.0.0.1:6224"}}, true, "no address that leads to another"},
		{Cluster{Listen: "127.0.0.1:6222", Peers: []string{"127.0.0.1:6223", "[::]:6224"}}, true, "no address that leads to another"},
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
		cfg := ServerConfig{Listen: "127.0.0.1:0", DataDir: dir, Cluster: tt.cluster, Log: slog.New(slog.DiscardHandler)}
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("check of %+v: %v, want %q", tt.cluster, err, tt.want)
		}
		err := NewServer(cfg).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.cluster, err, tt.want)
		}
	}
}
