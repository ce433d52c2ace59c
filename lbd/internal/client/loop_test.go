package client_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/lbd/internal/client"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

var (
	at     = netip.MustParseAddrPort
	user   = at("10.1.0.7:40001")
	vip    = at("192.0.2.80:80")
	s1, s2 = at("10.2.0.3:80"), at("10.3.0.4:80")
)

func private(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

// source has the record of the VIP, for ten minutes, until it is told to have nothing.
type source struct{ silent atomic.Bool }

func (s *source) Fetch(context.Context, netip.Addr) (record.Record, time.Duration, error) {
	if s.silent.Load() {
		return record.Record{}, 0, errors.New("nobody answers")
	}
	return record.Record{
		Name: "shop.cast.example.", Address: vip.Addr(), Owner: "ops@example.com",
		Keys:         []record.Key{record.NewKey(private(1).Public().(ed25519.PublicKey))},
		Destinations: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/15"), netip.MustParsePrefix("2001:db8::/32")},
	}, 10 * time.Minute, nil
}

func connection(cookie byte) kernel.Connection {
	return kernel.Connection{Flow: kernel.Flow{User: user, VIP: vip}, Tag: 7, Cookie: wire.Cookie{cookie}, Destination: s1}
}

// message is a change of destination by the key of a seed; as changes it.
func message(t *testing.T, c kernel.Connection, sequence uint64, seed byte, as func(*wire.Change)) []byte {
	t.Helper()
	m := wire.Change{
		Tag: c.Tag, Cookie: c.Cookie, User: c.User, VIP: c.VIP, Old: s1, New: s2, Sequence: sequence, Time: time.Now(),
		KeyID: record.NewKey(private(seed).Public().(ed25519.PublicKey)).ID,
	}
	if as != nil {
		as(&m)
	}
	s, err := wire.Sign(m, private(seed))
	if err != nil {
		t.Fatal(err)
	}
	return s.Raw
}

// rig is a loop over a fake plane, within a bubble.
type rig struct {
	plane *kernel.FakeClient
	keys  *source
	loop  *client.Loop
	stop  func()
}

func start(t *testing.T, limits movement.FollowerLimits) *rig {
	r := &rig{plane: kernel.NewFakeClient(), keys: &source{}}
	r.loop = client.New(client.Config{
		Services: []client.Service{{Name: "web", VIP: vip}}, Plane: r.plane, Source: r.keys, TTLMax: time.Hour, Limits: limits,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.loop.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	return r
}

func (r *rig) hear(raw []byte) {
	r.plane.Hear(user.Addr(), raw)
	synctest.Wait()
}

func (r *rig) status(t *testing.T) clientstatus.Status {
	t.Helper()
	s, err := r.loop.Status()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What is signed moves the connection, what is not is counted by its reason, and the next connection of the same ports is another one.
func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, movement.FollowerLimits{})
		<-r.loop.Ready()
		if got := r.plane.Services(); len(got) != 1 || got[0].VIP != vip || len(got[0].Published) != 1 || got[0].Published[0].String() != "10.2.0.0/15" {
			t.Errorf("the programs have %v", got)
		}
		c := connection(1)
		r.plane.Open(c)
		r.hear(message(t, c, 1, 2, nil))
		r.hear(message(t, c, 1, 2, func(m *wire.Change) { m.KeyID = record.NewKey(private(1).Public().(ed25519.PublicKey)).ID }))
		r.hear(message(t, c, 1, 1, func(m *wire.Change) { m.New = at("10.9.0.1:80") }))
		r.hear(message(t, c, 1, 1, func(m *wire.Change) { m.Time = m.Time.Add(-time.Hour) }))
		r.hear(message(t, c, 1, 1, func(m *wire.Change) { m.Time = m.Time.Add(time.Hour) }))
		if is, err := r.plane.Connection(c.Flow); err != nil || is.Destination != s1 {
			t.Errorf("forged messages have left %+v, %v", is, err)
		}
		good := message(t, c, 1, 1, nil)
		r.hear(good)
		r.hear(good)
		if is, err := r.plane.Connection(c.Flow); err != nil || is.Destination != s2 || is.Sequence != 1 || is.Moves != 1 {
			t.Errorf("a true message has left %+v, %v", is, err)
		}
		s := r.status(t)
		for _, why := range []movement.Reason{movement.UnknownKey, movement.BadSignature, movement.OutsideSet, movement.Expired, movement.Future, movement.Stale} {
			if s.Refused[why.String()] != 1 {
				t.Errorf("refused as %s %d times, want 1", why, s.Refused[why.String()])
			}
		}
		if s.Followed != 1 || len(s.Connections) != 1 || s.Connections[0].Cookie != "01000000" || s.Connections[0].Service != "web" || s.Services[0].Keys != 1 {
			t.Errorf("status %+v", s)
		}
		again := connection(2)
		r.plane.Open(again)
		r.hear(message(t, again, 1, 1, nil))
		if is, err := r.plane.Connection(c.Flow); err != nil || is.Destination != s2 {
			t.Errorf("the next connection is %+v, %v", is, err)
		}
		r.stop()
		if err := r.plane.Set(nil); err == nil {
			t.Error("the plane is not closed")
		}
		if _, err := r.loop.Status(); err == nil {
			t.Error("a loop that has ended answers")
		}
	})
}

// Connections beyond the limit are not followed until others are over.
func TestLimitOfConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, movement.FollowerLimits{Connections: 1})
		defer r.stop()
		<-r.loop.Ready()
		first, second := connection(1), connection(2)
		second.User = netip.AddrPortFrom(user.Addr(), 40002)
		r.plane.Open(first)
		r.plane.Open(second)
		r.hear(message(t, first, 1, 1, nil))
		r.hear(message(t, second, 1, 1, nil))
		if s := r.status(t); s.Followed != 1 || s.Refused["no_room"] != 1 {
			t.Errorf("status %+v", s)
		}
		r.plane.End(first.Flow)
		time.Sleep(2 * time.Second)
		r.hear(message(t, second, 1, 1, nil))
		if s := r.status(t); s.Followed != 2 {
			t.Errorf("status %+v", s)
		}
	})
}

// Without anybody who has keys a client serves, and believes nothing; what it knew is over with its time, in the programs, too.
func TestWithoutKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, movement.FollowerLimits{})
		defer r.stop()
		<-r.loop.Ready()
		r.keys.silent.Store(true)
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if got := r.plane.Services(); len(got) != 1 || len(got[0].Published) != 0 {
			t.Errorf("the programs have %v", got)
		}
		c := connection(1)
		r.plane.Open(c)
		r.hear(message(t, c, 1, 1, nil))
		if s := r.status(t); s.Followed != 0 || s.Refused["unknown_key"] != 1 || s.Services[0].Keys != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// full is a plane that takes no other services than it has.
type full struct {
	*kernel.FakeClient
	is atomic.Bool
}

func (f *full) Set(services []kernel.ClientService) error {
	if f.is.Load() {
		return errors.New("no room")
	}
	return f.FakeClient.Set(services)
}

// What the programs cannot take leaves them as they were, and is tried again.
func TestGoesOnWhenTheProgramsAreFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plane, keys := &full{FakeClient: kernel.NewFakeClient()}, &source{}
		loop := client.New(client.Config{Services: []client.Service{{Name: "web", VIP: vip}}, Plane: plane, Source: keys, TTLMax: time.Hour, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- loop.Run(ctx) }()
		<-loop.Ready()
		plane.is.Store(true)
		keys.silent.Store(true)
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if got := plane.Services(); len(got) != 1 || len(got[0].Published) != 1 {
			t.Errorf("the programs have %v", got)
		}
		plane.is.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := plane.Services(); len(got) != 1 || len(got[0].Published) != 0 {
			t.Errorf("the programs have %v", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestStartsWithoutKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := &rig{plane: kernel.NewFakeClient(), keys: &source{}}
		r.keys.silent.Store(true)
		r.loop = client.New(client.Config{Services: []client.Service{{Name: "web", VIP: vip}}, Plane: r.plane, Source: r.keys, TTLMax: time.Hour, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.loop.Run(ctx) }()
		<-r.loop.Ready()
		if took := time.Since(began); took != 2*time.Second || len(r.plane.Services()) != 1 {
			t.Errorf("ready after %v with %v", took, r.plane.Services())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestStatusSocketAndMetrics(t *testing.T) {
	r := start(t, movement.FollowerLimits{})
	<-r.loop.Ready()
	r.plane.Open(connection(1))
	socket := filepath.Join(t.TempDir(), "status.sock")
	task, err := client.ListenStatus(socket, r.loop)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- task.Run(ctx) }()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	s, err := clientstatus.Ask(t.Context(), socket)
	if err != nil || len(s.Connections) != 1 || s.Connections[0].Destination != s1 || s.Services[0].Published[0].String() != "10.2.0.0/15" {
		t.Errorf("%+v, %v", s, err)
	}
	silent, err := net.Dial("unix", socket) // who says and reads nothing holds up nobody for long
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := clientstatus.Ask(t.Context(), socket); err != nil {
		t.Error(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r.loop)
	all, err := registry.Gather()
	if err != nil || len(all) != 3 {
		t.Errorf("%v, %v", all, err)
	}
	for _, family := range all {
		if name := family.GetName(); !strings.HasPrefix(name, "manycast_client_") {
			t.Error(name)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	r.stop()
	if _, err := clientstatus.Ask(t.Context(), socket); err == nil {
		t.Error("the socket answers after its end")
	}
}
