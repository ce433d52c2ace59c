package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"net"
)

// testServer is an embedded bus that a test can stop and start again on its port and directory.
type testServer struct {
	t    *testing.T
	cfg  ServerConfig
	stop context.CancelFunc
	done chan error
}

func newTestServer(t *testing.T) *testServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s := &testServer{t: t, cfg: ServerConfig{Listen: addr, DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}}
	s.start()
	t.Cleanup(func() { s.end() })
	return s
}

func (s *testServer) start() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	srv := NewServer(s.cfg)
	s.stop, s.done = cancel, make(chan error, 1)
	go func() { s.done <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
	case err := <-s.done:
		s.t.Fatalf("bus ended: %v", err)
	case <-time.After(20 * time.Second):
		s.t.Fatal("bus not ready")
	}
}

func (s *testServer) end() {
	if s.stop == nil {
		return
	}
	s.stop()
	<-s.done
	s.stop = nil
}

func (s *testServer) connect(role string) *Conn {
	s.t.Helper()
	c, err := Connect(Config{
		URLs: []string{"nats://" + s.cfg.Listen}, Credentials: CredentialsPath(s.cfg.DataDir, role), Name: "test",
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	if err := c.WaitConnected(ctx); err != nil {
		s.t.Fatal(err)
	}
	return c
}

func TestRequestAndReply(t *testing.T) {
	s := newTestServer(t)
	router, admin := s.connect("igmpd"), s.connect("admin")
	stop, err := router.Handle("igmpd.r1.status", func(m Msg) (proto.Message, error) {
		var q wrapperspb.StringValue
		if err := proto.Unmarshal(m.Data, &q); err != nil {
			return nil, err
		}
		if q.Value == "bad" {
			return nil, errors.New("no such group")
		}
		return wrapperspb.String("hello " + q.Value), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	router.nc.Flush()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var answer wrapperspb.StringValue
	if err := admin.Request(ctx, "igmpd.r1.status", wrapperspb.String("you"), &answer); err != nil || answer.Value != "hello you" {
		t.Fatalf("Request: %v, %q", err, answer.Value)
	}
	if err := admin.Request(ctx, "igmpd.r1.status", wrapperspb.String("bad"), &answer); err == nil || !strings.Contains(err.Error(), "no such group") {
		t.Fatalf("handler's error did not come back: %v", err)
	}
	if err := admin.Request(ctx, "igmpd.r9.status", wrapperspb.String("you"), &answer); !errors.Is(err, ErrNotFound) {
		t.Fatalf("nobody there: %v", err)
	}
}

// TestRequestManyTellsErrorsFromAnswers: one of two handlers fails; its error is no empty answer.
func TestRequestManyTellsErrorsFromAnswers(t *testing.T) {
	s := newTestServer(t)
	admin := s.connect("admin")
	for _, broken := range []bool{true, false} {
		router := s.connect("igmpd")
		_, err := router.Handle("igmpd.status", func(Msg) (proto.Message, error) {
			if broken {
				return nil, errors.New("state is damaged")
			}
			return wrapperspb.String("fine"), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		router.nc.Flush()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	answers := 0
	err := admin.RequestMany(ctx, "igmpd.status", wrapperspb.String("you"), 2, func(m Msg) {
		answers++
		if len(m.Data) == 0 {
			t.Error("an empty answer")
		}
	})
	if answers != 1 || err == nil || !strings.Contains(err.Error(), "state is damaged") {
		t.Errorf("%d answers, error %v", answers, err)
	}
}

func TestNobodyGetsInWithoutCredentials(t *testing.T) {
	s := newTestServer(t)
	stranger := filepath.Join(t.TempDir(), "stranger.nk")
	if err := makeCredentials(stranger, "admin"); err != nil {
		t.Fatal(err)
	}
	c, err := Connect(Config{URLs: []string{"nats://" + s.cfg.Listen}, Credentials: stranger, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := c.WaitConnected(ctx); !errors.Is(err, ErrAway) {
		t.Fatalf("a stranger's key got in: %v", err)
	}
	for _, role := range []string{"admin", "director", "agent", "leader", "igmpd", "tdpd", "dnsd"} {
		info, err := os.Stat(CredentialsPath(s.cfg.DataDir, role))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("credentials of %s: %v, %v", role, info.Mode(), err)
		}
	}
	if err := os.Chmod(stranger, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Connect(Config{URLs: []string{"nats://" + s.cfg.Listen}, Credentials: stranger}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Fatalf("credentials that others can read: %v", err)
	}
}

func TestRolesAreKeptApart(t *testing.T) {
	s := newTestServer(t)
	agent, director := s.connect("agent"), s.connect("director")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := agent.Bucket(BucketConfig{Name: BucketServers}).Put(ctx, "web.s1", []byte("x")); err != nil {
		t.Fatalf("an agent registers: %v", err)
	}
	if _, err := director.Bucket(BucketConfig{Name: BucketAllocations}).Put(ctx, "web", []byte("x")); err != nil {
		t.Fatalf("a director allocates: %v", err)
	}
	// An agent that turns may neither allocate nor put its key in another member's place.
	for _, bucket := range []string{BucketAllocations, BucketMembers, BucketKeys, BucketServices, BucketLeases} {
		began := time.Now()
		_, err := agent.Bucket(BucketConfig{Name: bucket}).Put(ctx, "web", []byte("y"))
		if !errors.Is(err, ErrDenied) || errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "role agent") {
			t.Errorf("an agent wrote to %s: %v", bucket, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v to say so", took)
		}
	}
	leader := s.connect("leader")
	for bucket, may := range map[string]bool{BucketServers: true, BucketPins: true, BucketAllocations: true, BucketMembers: false, BucketServices: false, BucketOperator: false} {
		if _, err := leader.Bucket(BucketConfig{Name: bucket}).Put(ctx, "api.s2", []byte("z")); (err == nil) != may {
			t.Errorf("an agent that may lead wrote to %s: %v", bucket, err)
		}
	}
	if err := agent.Request(ctx, "igmpd.status", wrapperspb.String(""), &wrapperspb.StringValue{}); !errors.Is(err, ErrDenied) {
		t.Errorf("an agent asked a router: %v", err)
	}
	err := agent.RequestMany(ctx, "igmpd.status", wrapperspb.String(""), 0, func(Msg) {})
	if !errors.Is(err, ErrDenied) {
		t.Errorf("an agent asked all routers: %v", err)
	}
	// Directors and routers are handed the control group's key; who answers the DNS needs none.
	for role, may := range map[string]bool{"director": true, "igmpd": true, "tdpd": true, "dnsd": false} {
		keys := s.connect(role).Bucket(BucketConfig{Name: BucketKeys})
		if _, err := keys.List(ctx); (err == nil) != may {
			t.Errorf("%s read the keys: %v", role, err)
		}
		if _, err := keys.Put(ctx, "s1.key", []byte("z")); err == nil {
			t.Errorf("%s wrote a key", role)
		}
	}
	e, err := director.Bucket(BucketConfig{Name: BucketAllocations}).Get(ctx, "web")
	if err != nil || string(e.Value) != "x" {
		t.Fatalf("allocation is %q, %v", e.Value, err)
	}
}

func TestBucketRevisions(t *testing.T) {
	s := newTestServer(t)
	ctx := t.Context()
	b := s.connect("admin").Bucket(BucketConfig{Name: BucketLeases})
	first, err := b.Create(ctx, "leader", []byte("d1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(ctx, "leader", []byte("d2")); !errors.Is(err, ErrExists) {
		t.Fatalf("second Create: %v", err)
	}
	second, err := b.Update(ctx, "leader", []byte("d1"), first)
	if err != nil || second <= first {
		t.Fatalf("Update: %d after %d, %v", second, first, err)
	}
	if _, err := b.Update(ctx, "leader", []byte("d2"), first); !errors.Is(err, ErrConflict) {
		t.Fatalf("Update of an old revision: %v", err)
	}
	if err := b.DeleteAt(ctx, "leader", first); !errors.Is(err, ErrConflict) {
		t.Fatalf("DeleteAt an old revision: %v", err)
	}
	if err := b.Delete(ctx, "leader"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(ctx, "leader"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("Get of a deleted key: %v", err)
	}
	third, err := b.Create(ctx, "leader", []byte("d2"))
	if err != nil || third <= second {
		t.Fatalf("Create after Delete: %d after %d, %v", third, second, err)
	}
}

// next returns the next entry that is no Synced mark, or the mark itself if wanted.
func next(t *testing.T, w <-chan Entry) Entry {
	t.Helper()
	select {
	case e := <-w:
		return e
	case <-time.After(5 * time.Second):
		t.Fatal("nothing watched")
		return Entry{}
	}
}

func TestWatchSurvivesTheBus(t *testing.T) {
	s := newTestServer(t)
	ctx := t.Context()
	c := s.connect("admin")
	b := c.Bucket(BucketConfig{Name: BucketServices})
	for _, k := range []string{"gone", "web"} {
		if _, err := b.Put(ctx, k, []byte("1")); err != nil {
			t.Fatal(err)
		}
	}
	w := b.Watch(ctx)
	for range 2 {
		if e := next(t, w); e.Deleted || e.Synced {
			t.Fatalf("got %+v", e)
		}
	}
	if e := next(t, w); !e.Synced {
		t.Fatalf("want Synced, got %+v", e)
	}

	s.end()
	if _, err := b.Put(ctx, "web", []byte("2")); !errors.Is(err, ErrAway) {
		t.Fatalf("Put without a bus: %v", err)
	}
	s.start()
	other := s.connect("admin").Bucket(BucketConfig{Name: BucketServices})
	if _, err := other.Put(ctx, "web", []byte("3")); err != nil {
		t.Fatal(err)
	}
	if err := other.Delete(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for seen["web"] != "3" || seen["gone"] != "deleted" {
		e := next(t, w)
		seen[e.Key] = string(e.Value)
		if e.Deleted {
			seen[e.Key] = "deleted"
		}
	}
}

func TestClientsComeBeforeTheBus(t *testing.T) {
	s := newTestServer(t)
	s.end()
	c, err := Connect(Config{
		URLs: []string{"nats://" + s.cfg.Listen}, Credentials: CredentialsPath(s.cfg.DataDir, "agent"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make(chan Msg, 1)
	if _, err := c.Subscribe("lbd.web.announce", func(m Msg) { got <- m }); err != nil {
		t.Fatal(err)
	}
	s.start()
	if err := c.WaitConnected(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.nc.Flush()
	if err := s.connect("director").Publish("lbd.web.announce", wrapperspb.String("x")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-got:
	case <-time.After(10 * time.Second):
		t.Fatal("subscription made without a bus never came to it")
	}
}

func TestServerSaysWhatIsWrong(t *testing.T) {
	s := newTestServer(t)
	second := s.cfg
	if err := NewServer(second).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "in use by another daemon") {
		t.Fatalf("second bus on the directory: %v", err)
	}
	second.DataDir = t.TempDir()
	if err := NewServer(second).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Fatalf("second bus on the port: %v", err)
	}
	second.Listen = "nowhere"
	if err := NewServer(second).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Fatalf("bad listen address: %v", err)
	}
}

// TestListIsWholeOrFails: a connection that ends in the middle of a list makes an error, not the end of the list.
func TestListIsWholeOrFails(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	const all = 1000
	full := s.connect("admin").Bucket(BucketConfig{Name: BucketServices})
	for i := range all {
		if _, err := full.Put(t.Context(), fmt.Sprint("s", i), make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	for wait := time.Duration(0); wait < 10*time.Millisecond; wait += 200 * time.Microsecond {
		c := s.connect("admin")
		time.AfterFunc(wait, c.nc.Close)
		got, err := c.Bucket(BucketConfig{Name: BucketServices}).List(t.Context())
		if err == nil && len(got) != all {
			t.Fatalf("%d of %d entries when the connection ended after %v, and no error", len(got), all, wait)
		}
	}
}
