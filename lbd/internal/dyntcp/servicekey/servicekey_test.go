package servicekey_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/internal/records"
	"github.com/manycast/manycast/lbd/internal/dyntcp/servicekey"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

var (
	start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	vip   = netip.MustParseAddr("192.0.2.80")
	at    = netip.MustParseAddrPort
)

func private(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(seed byte) record.Key { return record.NewKey(private(seed).Public().(ed25519.PublicKey)) }

func testRecord(seeds ...byte) record.Record {
	r := record.Record{
		Name: "shop.cast.example.", Address: vip, Owner: "ops@example.com", Destinations: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	}
	for _, seed := range seeds {
		r.Keys = append(r.Keys, public(seed))
	}
	return r
}

func change(when time.Time) wire.Change {
	return wire.Change{
		Tag: 7, Cookie: wire.Cookie{1}, User: at("10.1.0.7:40001"), VIP: netip.AddrPortFrom(vip, 80), Old: at("10.2.0.1:80"), New: at("10.3.0.2:80"),
		Sequence: 1, Time: when,
	}
}

func TestRingSignsWithTheKeyInForce(t *testing.T) {
	var r servicekey.Ring
	if _, err := r.Sign(change(start)); !errors.Is(err, servicekey.ErrNoKey) || r.Has(vip) {
		t.Errorf("without a key: %v", err)
	}
	key := func(seed byte, address string, notBefore time.Time) keyfile.Group {
		return keyfile.Group{Name: "shop.cast.example.", Address: netip.MustParseAddr(address), NotBefore: notBefore, Private: private(seed)}
	}
	r.Set([]keyfile.Group{
		key(1, "192.0.2.80", start.Add(-time.Hour)), key(2, "192.0.2.80", start.Add(time.Minute)), key(3, "192.0.2.81", start.Add(-time.Minute)),
	})
	for when, seed := range map[time.Time]byte{start: 1, start.Add(time.Minute): 2} {
		s, err := r.Sign(change(when))
		if err != nil || s.KeyID != public(seed).ID || !s.Verify(public(seed).Public) {
			t.Errorf("at %v: %+v, %v", when, s.Change, err)
		}
	}
	if _, err := r.Sign(change(start.Add(-2 * time.Hour))); !errors.Is(err, servicekey.ErrNoKey) || !r.Has(vip) {
		t.Errorf("before any key: %v", err)
	}
}

// one is the only update there has to be.
func one(t *testing.T, updates []servicekey.Update) servicekey.Update {
	t.Helper()
	if len(updates) != 1 {
		t.Fatalf("updates %+v", updates)
	}
	return updates[0]
}

func none(t *testing.T, what string, updates []servicekey.Update) {
	t.Helper()
	if len(updates) != 0 {
		t.Errorf("%s: %+v", what, updates)
	}
}

func wanted(t *testing.T, b *servicekey.Book, what string, n int) {
	t.Helper()
	if w := b.Wanted(); len(w) != n {
		t.Errorf("%s: asked for %v", what, w)
	}
}

func answer(r record.Record, ttl time.Duration) records.Answer {
	return records.Answer{Address: vip, Record: r, TTL: ttl}
}

func TestBookKeepsToTheTTL(t *testing.T) {
	b := servicekey.NewBook(time.Hour)
	none(t, "at first", b.Use(start, vip))
	wanted(t, b, "at first", 1)
	none(t, "asked twice", b.Use(start, vip))
	wanted(t, b, "asked twice", 0)
	u := one(t, b.Answer(start, answer(testRecord(1), 100*time.Second)))
	if u.VIP != vip || u.Name != "shop.cast.example." || len(u.Service.Keys) != 1 || u.Service.Keys[0].ID != public(1).ID ||
		len(u.Service.Destinations) != 1 || !u.Service.Until.Equal(start.Add(100*time.Second)) {
		t.Fatalf("%+v", u)
	}
	none(t, "nothing new", b.Tick(start.Add(50*time.Second)))
	wanted(t, b, "half of the TTL", 0)
	b.Tick(start.Add(80 * time.Second))
	wanted(t, b, "near its end", 1)
	none(t, "failed", b.Answer(start.Add(80*time.Second), records.Answer{Address: vip, Err: errors.New("server is away")}))
	b.Tick(start.Add(82 * time.Second))
	wanted(t, b, "after a failure", 1)
	u = one(t, b.Answer(start.Add(82*time.Second), answer(testRecord(1, 2), 100*time.Second)))
	if len(u.Service.Keys) != 2 || !u.Service.Until.Equal(start.Add(182*time.Second)) {
		t.Errorf("renewed: %+v", u)
	}
}

func TestBookOfNoRecord(t *testing.T) {
	b := servicekey.NewBook(time.Hour)
	b.Use(start, vip)
	b.Wanted()
	gone := records.Answer{Address: vip, Err: record.ErrNone}
	u := one(t, b.Answer(start, gone))
	if u.Name != "" || len(u.Service.Keys) != 0 || u.Service.Until.After(start) {
		t.Errorf("%+v", u)
	}
	none(t, "told already", b.Tick(start.Add(time.Second)))
	b.Tick(start.Add(6 * time.Second))
	wanted(t, b, "asked again", 1)
	if u := one(t, b.Answer(start.Add(6*time.Second), answer(testRecord(1), time.Minute))); len(u.Service.Keys) != 1 {
		t.Errorf("made meanwhile: %+v", u)
	}
	b.Tick(start.Add(60 * time.Second))
	b.Wanted()
	if u := one(t, b.Answer(start.Add(60*time.Second), gone)); len(u.Service.Keys) != 0 || u.Service.Until.After(start.Add(60*time.Second)) {
		t.Errorf("deleted: %+v", u)
	}
}

func TestBookAsksForKeysItLacks(t *testing.T) {
	b := servicekey.NewBook(time.Hour)
	none(t, "of no use", b.Ask(start, vip))
	wanted(t, b, "of no use", 0)
	b.Use(start, vip)
	b.Wanted()
	b.Answer(start, answer(testRecord(1), time.Hour))
	for i := range 40 { // a message of an unknown key each 100 ms
		none(t, "asking", b.Ask(start.Add(time.Duration(i)*100*time.Millisecond), vip))
	}
	wanted(t, b, "the record is fresh", 0)
	b.Ask(start.Add(5*time.Second), vip)
	b.Ask(start.Add(5*time.Second), vip)
	wanted(t, b, "it may be older than the key", 1)
	if u := one(t, b.Answer(start.Add(5*time.Second), answer(testRecord(1, 2), time.Hour))); len(u.Service.Keys) != 2 {
		t.Errorf("%+v", u)
	}
}

func TestBookForgetsWhatIsNotUsed(t *testing.T) {
	b := servicekey.NewBook(time.Hour)
	b.Use(start, vip)
	b.Use(start, vip)
	b.Wanted()
	b.Unuse(vip)
	one(t, b.Answer(start, answer(testRecord(1), 100*time.Second)))
	b.Unuse(vip)
	b.Unuse(vip)
	none(t, "not used", b.Tick(start.Add(80*time.Second)))
	b.Tick(start.Add(90 * time.Second))
	if u := one(t, b.Use(start.Add(90*time.Second), vip)); len(u.Service.Keys) != 1 {
		t.Errorf("used again: %+v", u)
	}
}

func TestBookOfATemporaryRecord(t *testing.T) {
	b := servicekey.NewBook(time.Hour)
	b.Use(start, vip)
	r := testRecord(1)
	r.Until = start.Add(30 * time.Second)
	if u := one(t, b.Answer(start, answer(r, time.Minute))); !u.Service.Until.Equal(r.Until) {
		t.Errorf("until %v", u.Service.Until)
	}
}

// source answers with what it was told to, and counts.
type source struct {
	mu    sync.Mutex
	asked int
	r     record.Record
	err   error
}

func (s *source) Fetch(context.Context, netip.Addr) (record.Record, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.r, 20 * time.Second, s.err
}

func (s *source) tell(r record.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.r, s.err = r, err
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// told are the updates of a keeper.
type told struct {
	mu   sync.Mutex
	list []servicekey.Update
}

func (u *told) set(one servicekey.Update) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = append(u.list, one)
}

func (u *told) all() []servicekey.Update {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.list)
}

func TestKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{err: errors.New("server is away")}
		var log strings.Builder
		var got told
		k := servicekey.NewKeeper(src, time.Hour, got.set, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.Run(ctx) }()
		k.Use(ctx, vip)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if updates := got.all(); len(updates) != 0 || strings.Count(log.String(), "server is away") != 1 {
			t.Fatalf("%+v\n%s", updates, log.String())
		}
		src.tell(testRecord(1), nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if updates := got.all(); len(updates) != 1 || len(updates[0].Service.Keys) != 1 {
			t.Fatalf("%+v", updates)
		}
		before := src.count()
		time.Sleep(200 * time.Second)
		synctest.Wait()
		if n := src.count() - before; n < 10 || n > 15 {
			t.Errorf("asked %d times in 200 s, for a TTL of 20", n)
		}
		updates := got.all()
		for i, u := range updates[1:] {
			if last := updates[i]; !u.Service.Until.After(last.Service.Until) {
				t.Errorf("renewed until %v, before until %v", u.Service.Until, last.Service.Until)
			}
		}
		last := updates[len(updates)-1].Service.Until
		if !last.After(time.Now()) {
			t.Errorf("over since %v, now %v", last, time.Now())
		}
		src.tell(testRecord(1, 2), nil)
		k.Ask(ctx, vip)
		time.Sleep(6 * time.Second)
		k.Ask(ctx, vip)
		time.Sleep(time.Second)
		synctest.Wait()
		updates = got.all()
		if keys := updates[len(updates)-1].Service.Keys; !slices.ContainsFunc(keys, func(k record.Key) bool { return k.ID == public(2).ID }) {
			t.Errorf("keys %v", keys)
		}
		k.Unuse(ctx, vip)
		synctest.Wait()
		before = src.count()
		time.Sleep(100 * time.Second)
		synctest.Wait()
		if src.count() > before+1 { // once, for it was used since it was fetched
			t.Error("asked for what nobody uses")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
