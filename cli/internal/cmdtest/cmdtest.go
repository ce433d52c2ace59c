// Package cmdtest runs commands against an embedded bus of their own, on which a test writes what daemons write.
package cmdtest

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmd"
	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// Bus is an embedded bus on loopback, ended with the test.
type Bus struct {
	t    *testing.T
	url  string
	dir  string
	conn *bus.Conn

	mu      sync.Mutex
	renewed map[[2]string][]byte // bucket and key
}

// Start starts a bus.
func Start(t *testing.T) *Bus {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := l.Addr().String()
	l.Close()
	b := &Bus{t: t, url: "nats://" + listen, dir: t.TempDir(), renewed: map[[2]string][]byte{}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	srv := bus.NewServer(bus.ServerConfig{Listen: listen, DataDir: b.dir, Log: slog.New(slog.DiscardHandler)})
	go func() { ended <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
	case err := <-ended:
		t.Fatalf("bus: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("bus is not ready")
	}
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("bus: %v", err)
		}
	})
	if b.conn, err = bus.Connect(b.config()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.conn.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.conn.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	go b.renew(t.Context())
	return b
}

// renew writes registrations and the lease twice a second, as the daemons do.
func (b *Bus) renew(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		b.mu.Lock()
		for at, data := range b.renewed {
			_, _ = b.conn.Bucket(bus.BucketConfig{Name: at[0]}).Put(ctx, at[1], data) // the test sees what is not there
		}
		b.mu.Unlock()
	}
}

func (b *Bus) keep(bucket, key string, m proto.Message) {
	b.t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.renewed[[2]string{bucket, key}] = data
	b.PutRaw(bucket, key, data)
}

func (b *Bus) config() bus.Config {
	return bus.Config{
		URLs: []string{b.url}, Credentials: b.Credentials(), Name: "test", Log: slog.New(slog.DiscardHandler),
	}
}

// Result is what a command wrote.
type Result struct {
	Out, Err string
	Error    error
}

// Run runs a command line against the bus.
func (b *Bus) Run(args ...string) Result {
	b.t.Helper()
	return b.RunWith("", args...)
}

// RunWith runs a command line with an input.
func (b *Bus) RunWith(in string, args ...string) Result {
	b.t.Helper()
	return Run(b.t, in, append([]string{"--bus", b.url, "--credentials", b.Credentials()}, args...)...)
}

// Complete returns what a shell is told for the last of args.
func (b *Bus) Complete(args ...string) string {
	b.t.Helper()
	r := Run(b.t, "", append([]string{"__complete", "--bus", b.url, "--credentials", b.Credentials()}, args...)...)
	if r.Error != nil {
		b.t.Fatal(r.Error)
	}
	return r.Out
}

// URL is where the bus serves.
func (b *Bus) URL() string { return b.url }

// Credentials is the file of the operator's.
func (b *Bus) Credentials() string { return bus.CredentialsPath(b.dir, "admin") }

// Run runs a command line.
func Run(t *testing.T, in string, args ...string) Result {
	t.Helper()
	var out, errs bytes.Buffer
	f := &cmdutil.Factory{In: strings.NewReader(in), Out: &out, Err: &errs, Now: time.Now}
	root := cmd.New(f)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return Result{out.String(), errs.String(), err}
}

// OK is Run of a command that has to succeed; it returns what it printed.
func (b *Bus) OK(args ...string) string {
	b.t.Helper()
	r := b.Run(args...)
	if r.Error != nil {
		b.t.Fatalf("manycast %s: %v\n%s%s", strings.Join(args, " "), r.Error, r.Out, r.Err)
	}
	return r.Out
}

// Refused is Run of a command that has to fail with an error that has all the words.
func (b *Bus) Refused(words []string, args ...string) {
	b.t.Helper()
	r := b.Run(args...)
	if r.Error == nil {
		b.t.Fatalf("manycast %s: no error\n%s", strings.Join(args, " "), r.Out)
	}
	for _, word := range words {
		if !strings.Contains(r.Error.Error(), word) {
			b.t.Fatalf("manycast %s: %v\nhas no %q", strings.Join(args, " "), r.Error, word)
		}
	}
}

// Put writes an entry as a daemon does.
func (b *Bus) Put(bucket, key string, m proto.Message) {
	b.t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	b.PutRaw(bucket, key, data)
}

// PutRaw writes any bytes.
func (b *Bus) PutRaw(bucket, key string, data []byte) {
	b.t.Helper()
	if _, err := b.conn.Bucket(bus.BucketConfig{Name: bucket}).Put(b.t.Context(), key, data); err != nil {
		b.t.Fatal(err)
	}
}

// Get reads an entry into m and reports whether it is there.
func (b *Bus) Get(bucket, key string, m proto.Message) bool {
	b.t.Helper()
	e, err := b.conn.Bucket(bus.BucketConfig{Name: bucket}).Get(b.t.Context(), key)
	if err != nil {
		return false
	}
	if err := proto.Unmarshal(e.Value, m); err != nil {
		b.t.Fatal(err)
	}
	return true
}

// Service writes services from YAML.
func (b *Bus) Service(yaml string) {
	b.t.Helper()
	services, err := service.Parse([]byte(yaml))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, s := range services {
		b.Put(bus.BucketServices, s.Name, service.ToProto(s))
	}
}

// Register keeps a server registered as its agent does.
func (b *Bus) Register(svc, name, address string, weight uint32, healthy bool) {
	b.t.Helper()
	b.keep(bus.BucketServers, svc+"."+name, &allocv1.Registration{
		Name: name, Service: svc, Address: address, Weight: weight, Healthy: healthy, BootId: 1,
	})
}

// RegisterLoad is Register with what the server says of its work.
func (b *Bus) RegisterLoad(svc, name, address string, weight uint32, load alloc.Load) {
	b.t.Helper()
	b.keep(bus.BucketServers, svc+"."+name, &allocv1.Registration{
		Name: name, Service: svc, Address: address, Weight: weight, Healthy: true, BootId: 1, Load: alloc.LoadToProto(load),
	})
}

// Silence ends a server's renewals as the death of its agent does.
func (b *Bus) Silence(svc, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.renewed, [2]string{bus.BucketServers, svc + "." + name})
}

// Lead keeps the lease for a director.
func (b *Bus) Lead(holder string) {
	b.t.Helper()
	b.keep(bus.BucketLeases, "director", &allocv1.Lease{Holder: holder})
}

// Allocate writes a committed allocation, and one that is prepared unless it is zero.
func (b *Bus) Allocate(svc string, committed, prepared alloc.Allocation) {
	b.t.Helper()
	b.Put(bus.BucketAllocations, svc, &allocv1.State{
		Committed: alloc.ToProto(svc, committed), Prepared: alloc.ToProto(svc, prepared),
	})
}

// times are what differs from run to run: ages, and the spaces that a shorter one is padded with.
var (
	ages  = regexp.MustCompile(`\b(\d+[dhms])+ ago`)
	since = regexp.MustCompile(`since (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|(\d+[dhms])+)`)
)

// Golden compares got, without its times, with testdata/NAME.golden; UPDATE_GOLDEN=1 writes it.
func Golden(t *testing.T, name, got string) {
	t.Helper()
	got = since.ReplaceAllString(ages.ReplaceAllString(got, "AGE ago"), "since TIME")
	path := filepath.Join("testdata", name+".golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}
