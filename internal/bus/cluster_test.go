package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// freePorts are n TCP ports on loopback.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// natsServers are plain nats-servers, as an operator has them, who included what NATSConfig says.
func natsServers(t *testing.T, creds string, n int) (servers []*server.Server, urls []string) {
	t.Helper()
	account, err := NATSConfig(creds)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "manycast.conf"), []byte(account), 0o600); err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2*n)
	var routes []string
	for _, port := range ports[n:] {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	for i := range n {
		conf := fmt.Sprintf("server_name: n%d\nlisten: 127.0.0.1:%d\njetstream { store_dir: %q }\naccounts { MANYCAST { include manycast.conf } }\n",
			i, ports[i], filepath.Join(dir, fmt.Sprint("n", i)))
		if n > 1 {
			conf += fmt.Sprintf("cluster { name: c, listen: 127.0.0.1:%d, routes: [%s] }\n", ports[n+i], strings.Join(routes, ", "))
		}
		path := filepath.Join(dir, fmt.Sprintf("n%d.conf", i))
		if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		opts, err := server.ProcessConfigFile(path)
		if err != nil {
			t.Fatal(err)
		}
		opts.NoSigs, opts.NoLog = true, true
		ns, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		go ns.Start()
		t.Cleanup(func() {
			ns.Shutdown()
			ns.WaitForShutdown()
		})
		servers, urls = append(servers, ns), append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
	}
	return servers, urls
}

func connectTo(t *testing.T, urls []string, creds, role string) *Conn {
	t.Helper()
	c, err := Connect(Config{URLs: urls, Credentials: CredentialsPath(creds, role), Name: role, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

// eventually repeats try until it succeeds; a cluster takes a while to elect its leaders.
func eventually(t *testing.T, try func(context.Context) error) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := try(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// TestAnotherNATS: a server that the suite did not start, with the users that NATSConfig says.
func TestAnotherNATS(t *testing.T) {
	creds := t.TempDir()
	_, urls := natsServers(t, creds, 1)
	agent, director, admin := connectTo(t, urls, creds, "agent"), connectTo(t, urls, creds, "director"), connectTo(t, urls, creds, "admin")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := agent.Bucket(BucketConfig{Name: BucketServers}).Put(ctx, "web.s1", []byte("1"))
	if !errors.Is(err, ErrNoBucket) || !strings.Contains(err.Error(), "manycast bus init") {
		t.Fatalf("before init: %v", err)
	}
	made, err := admin.MakeBuckets(ctx, 0)
	if err != nil || len(made) != len(Buckets()) {
		t.Fatalf("made %v, %v", made, err)
	}
	if made, err := admin.MakeBuckets(ctx, 1); err != nil || len(made) != 0 {
		t.Fatalf("made again %v, %v", made, err)
	}
	if _, err := admin.MakeBuckets(ctx, 3); err == nil {
		t.Fatal("three replicas on one server")
	}
	w := director.Bucket(BucketConfig{Name: BucketServers}).Watch(ctx)
	if e := next(t, w); !e.Synced {
		t.Fatalf("%+v", e)
	}
	if _, err := agent.Bucket(BucketConfig{Name: BucketServers}).Put(ctx, "web.s1", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if e := next(t, w); e.Key != "web.s1" {
		t.Fatalf("%+v", e)
	}
	if _, err := agent.Bucket(BucketConfig{Name: BucketAllocations}).Put(ctx, "web", []byte("1")); !errors.Is(err, ErrDenied) {
		t.Fatalf("an agent allocates: %v", err)
	}
	if _, err := agent.MakeBuckets(ctx, 0); !errors.Is(err, ErrDenied) {
		t.Fatalf("an agent makes buckets: %v", err)
	}
}

// TestClusterLosesAServer: with three replicas one of three servers can go, and clients go on with the others.
func TestClusterLosesAServer(t *testing.T) {
	t.Parallel()
	creds := t.TempDir()
	servers, urls := natsServers(t, creds, 3)
	admin := connectTo(t, urls[:1], creds, "admin")
	eventually(t, func(ctx context.Context) error {
		_, err := admin.MakeBuckets(ctx, 3)
		return err
	})
	info, err := admin.js.Stream(t.Context(), streamPrefix+BucketAllocations)
	if err != nil {
		t.Fatal(err)
	}
	leader := slices.IndexFunc(servers, func(ns *server.Server) bool { return ns.Name() == info.CachedInfo().Cluster.Leader })
	director := connectTo(t, urls[leader:leader+1], creds, "director") // it learns the others' addresses from this one
	b := director.Bucket(BucketConfig{Name: BucketAllocations})
	eventually(t, func(ctx context.Context) error {
		_, err := b.Put(ctx, "web", []byte("1"))
		return err
	})
	w := b.Watch(t.Context())
	watched(t, w, "1")
	servers[leader].Shutdown()
	eventually(t, func(ctx context.Context) error {
		_, err := b.Put(ctx, "web", []byte("2"))
		return err
	})
	watched(t, w, "2")
}

// watched waits until the watch has sent value.
func watched(t *testing.T, w <-chan Entry, value string) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		select {
		case e := <-w:
			if string(e.Value) == value {
				return
			}
		case <-deadline:
			t.Fatalf("the watch never sent %q", value)
		}
	}
}
