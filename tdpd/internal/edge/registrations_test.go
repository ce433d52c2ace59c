package edge

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func registered(key, address string) bus.Entry {
	data, err := proto.Marshal(&allocv1.Registration{Address: address})
	if err != nil {
		panic(err)
	}
	return bus.Entry{Key: key, Value: data}
}

// TestServersLinger: a registration that vanishes leaves its server for a while; one that comes back, or another of the same address,
// keeps it.
func TestServersLinger(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	r := newRegistrations([]netip.Addr{netip.MustParseAddr("10.0.0.9")}, time.Minute)
	for i, x := range []struct {
		after   time.Duration
		entry   bus.Entry
		changed bool
		want    string
	}{
		{0, registered("web.s1", "10.0.0.1"), true, "[10.0.0.1 10.0.0.9]"},
		{0, registered("web.s1", "10.0.0.1"), false, "[10.0.0.1 10.0.0.9]"},
		{0, registered("dns.s1", "::ffff:10.0.0.1"), false, "[10.0.0.1 10.0.0.9]"},
		{0, bus.Entry{Synced: true}, false, "[10.0.0.1 10.0.0.9]"},
		{time.Second, bus.Entry{Key: "web.s1", Deleted: true}, false, "[10.0.0.1 10.0.0.9]"},
		{time.Minute, registered("web.s2", "10.0.0.2"), true, "[10.0.0.1 10.0.0.2]"}, // 10.0.0.9 was not seen again
		{61 * time.Second, bus.Entry{Key: "dns.s1", Deleted: true}, false, "[10.0.0.1 10.0.0.2]"},
		{100 * time.Second, registered("web.s1", "10.0.0.1"), false, "[10.0.0.1 10.0.0.2]"},
		{200 * time.Second, registered("web.s1", "10.0.0.3"), true, "[10.0.0.1 10.0.0.2 10.0.0.3]"}, // it has moved
		{260 * time.Second, bus.Entry{Synced: true}, true, "[10.0.0.2 10.0.0.3]"},
		{261 * time.Second, registered("web.s2", "224.0.0.1"), false, "[10.0.0.2 10.0.0.3]"},
		{262 * time.Second, bus.Entry{Key: "web.s4", Value: []byte{0xff}}, false, "[10.0.0.2 10.0.0.3]"},
		{263 * time.Second, registered("web.s4", "fe80::1"), false, "[10.0.0.2 10.0.0.3]"},
		{264 * time.Second, registered("web.s4", "2001:db8::4"), true, "[10.0.0.2 10.0.0.3 2001:db8::4]"},
	} {
		changed := r.take(start.Add(x.after), x.entry)
		if got := fmt.Sprint(r.all()); got != x.want || changed != x.changed {
			t.Errorf("step %d: %s, changed %v, want %s, %v", i, got, changed, x.want, x.changed)
		}
	}
	if next := r.next(); next != start.Add(321*time.Second) || !r.expire(next) || len(r.all()) != 2 || !r.next().IsZero() {
		t.Errorf("the next one goes at %v, then there are %v", next.Sub(start), r.all())
	}
}

// TestServerThatIsSwitchedOff: nobody takes its registration back, but it is not renewed.
func TestServerThatIsSwitchedOff(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	r := newRegistrations(nil, time.Minute)
	renew := func(key, address string, at time.Duration) {
		e := registered(key, address)
		e.Created = start.Add(at)
		r.take(start, e)
	}
	renew("web.s1", "10.0.0.1", 0)
	renew("web.s2", "10.0.0.2", 0)
	renew("web.s2", "10.0.0.2", 50*time.Second)
	for _, x := range []struct {
		at      time.Duration
		changed bool
		want    string
	}{{59 * time.Second, false, "[10.0.0.1 10.0.0.2]"}, {time.Minute, true, "[10.0.0.2]"}, {time.Hour, true, "[]"}} {
		if changed := r.silent(start, start.Add(x.at)); changed != x.changed || fmt.Sprint(r.all()) != x.want {
			t.Errorf("after %v: %v, changed %v", x.at, r.all(), changed)
		}
	}
}

func TestServersAreBounded(t *testing.T) {
	r := newRegistrations(nil, 0)
	for i := range serversMost + 2 {
		r.take(time.Time{}, registered(fmt.Sprint("web.", i), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()))
	}
	if len(r.all()) != serversMost || r.refused != 2 {
		t.Errorf("%d servers, %d refused", len(r.all()), r.refused)
	}
	r.take(time.Unix(1, 0), bus.Entry{Key: "web.0", Deleted: true})
	if !r.take(time.Unix(1, 0), registered("web.new", "10.255.0.1")) || len(r.all()) != serversMost {
		t.Errorf("room that was made is not used: %d", len(r.all()))
	}
}

// TestServersFromTheBus: what registers there is told, and known to the next process before the bus is.
func TestServersFromTheBus(t *testing.T) {
	connect, dir := startBus(t)
	router, operator := connect("tdpd"), connect("admin")
	path := filepath.Join(t.TempDir(), "servers")
	s, err := NewServers(router, path, 20*time.Millisecond, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	wait := func(s *Servers, want string) {
		t.Helper()
		late := time.After(10 * time.Second)
		for got := ""; got != want; {
			select {
			case all := <-s.All():
				got = fmt.Sprint(all)
			case <-late:
				t.Fatalf("%s, want %s", got, want)
			}
		}
	}
	wait(s, "[]")
	bucket := operator.Bucket(bus.BucketConfig{Name: bus.BucketServers})
	put := func(key, address string) {
		t.Helper()
		eventually(t, func() error {
			_, err := bucket.Put(t.Context(), key, registered(key, address).Value)
			return err
		})
	}
	put("web.s1", "10.0.0.1")
	wait(s, "[10.0.0.1]")
	put("web.s2", "10.0.0.2")
	wait(s, "[10.0.0.1 10.0.0.2]")
	if err := bucket.Delete(t.Context(), "web.s1"); err != nil {
		t.Fatal(err)
	}
	wait(s, "[10.0.0.2]")
	eventually(t, func() error {
		if text, err := os.ReadFile(path); err != nil || string(text) != "10.0.0.2\n" {
			return fmt.Errorf("kept: %q, %w", text, err)
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// The bus is away for the next one.
	away, err := bus.Connect(bus.Config{
		URLs: []string{"nats://127.0.0.1:1"}, Credentials: bus.CredentialsPath(dir, "tdpd"), Name: "tdpd", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	next, err := NewServers(away, path, time.Nanosecond, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	background(t, next.Run)
	wait(next, "[10.0.0.2]")
}
