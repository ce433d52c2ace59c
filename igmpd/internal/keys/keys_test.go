package keys

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/manycast/manycast/igmpd/internal/admission"
	"github.com/manycast/manycast/internal/record"
)

var (
	start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC) // a Monday
	group = netip.MustParseAddr("239.80.80.80")
)

func testRecord(t testing.TB, seed byte, sessions string) record.Record {
	t.Helper()
	s := make([]byte, ed25519.SeedSize)
	s[0] = seed
	r := record.Record{
		Name: "shop.example.net.", Address: group, Owner: "ops@example.net", Private: true,
		Keys: []record.Key{record.NewKey(ed25519.NewKeyFromSeed(s).Public().(ed25519.PublicKey))},
	}
	if sessions != "" {
		var err error
		if r.Sessions, err = record.ParseSessions(sessions); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func status(c *Cache, now time.Time, id uint32) admission.KeyStatus {
	return c.Key(now, group, id).Status
}

func TestCacheAsksOnceAndKeepsToItsTime(t *testing.T) {
	c := NewCache(time.Hour)
	r := testRecord(t, 1, "")
	id := r.Keys[0].ID
	for range 3 {
		if got := status(c, start, id); got != admission.KeyUnknown {
			t.Fatalf("status %d before the answer", got)
		}
	}
	if w := c.Wanted(); len(w) != 1 || w[0] != (Question{Group: group}) || len(c.Wanted()) != 0 {
		t.Fatalf("asked for %v", w)
	}
	c.Put(start, Answer{Group: group, Record: r, TTL: 10 * time.Second})
	key := c.Key(start.Add(10*time.Second-1), group, id)
	if key.Status != admission.KeyKnown || !key.Public.Equal(r.Keys[0].Public) || !key.Open {
		t.Fatalf("key %+v", key)
	}
	if got := status(c, start.Add(10*time.Second), id); got != admission.KeyUnknown {
		t.Fatalf("status %d: a stale key is used", got)
	}
}

func TestCacheTTLIsCapped(t *testing.T) {
	c := NewCache(time.Minute)
	r := testRecord(t, 1, "")
	status(c, start, r.Keys[0].ID)
	c.Put(start, Answer{Group: group, Record: r, TTL: 100 * time.Hour})
	if got := status(c, start.Add(time.Minute), r.Keys[0].ID); got != admission.KeyUnknown {
		t.Fatalf("status %d after ttl_max", got)
	}
}

func TestCacheRefreshesWhatIsUsed(t *testing.T) {
	c := NewCache(time.Hour)
	r := testRecord(t, 1, "")
	id := r.Keys[0].ID
	status(c, start, id)
	c.Wanted()
	c.Put(start, Answer{Group: group, Record: r, TTL: 100 * time.Second})
	c.Tick(start.Add(80 * time.Second))
	if w := c.Wanted(); len(w) != 0 {
		t.Fatal("a record that nobody used is refreshed")
	}
	status(c, start.Add(80*time.Second), id)
	c.Tick(start.Add(80 * time.Second))
	if w := c.Wanted(); len(w) != 1 {
		t.Fatal("not refreshed before its time is over")
	}
	c.Put(start.Add(81*time.Second), Answer{Group: group, Err: errors.New("server is away")})
	if got := status(c, start.Add(99*time.Second), id); got != admission.KeyKnown {
		t.Fatalf("status %d: a failed refresh took the key away early", got)
	}
	c.Tick(start.Add(99 * time.Second))
	if w := c.Wanted(); len(w) != 1 {
		t.Fatal("no second try")
	}
	if got := status(c, start.Add(100*time.Second), id); got != admission.KeyUnknown {
		t.Fatalf("status %d: used beyond its time", got)
	}
}

func TestCacheNegative(t *testing.T) {
	c := NewCache(time.Hour)
	status(c, start, 1)
	c.Wanted()
	c.Put(start, Answer{Group: group, Err: record.ErrNone})
	if got := status(c, start.Add(negativeTTL-1), 1); got != admission.KeyMissing {
		t.Fatalf("status %d", got)
	}
	if got := status(c, start.Add(negativeTTL), 1); got != admission.KeyUnknown || len(c.Wanted()) != 1 {
		t.Fatalf("status %d: for ever missing", got)
	}
}

func TestCacheRolledKey(t *testing.T) {
	c := NewCache(time.Hour)
	first, second := testRecord(t, 1, ""), testRecord(t, 2, "")
	status(c, start, first.Keys[0].ID)
	c.Wanted()
	c.Put(start, Answer{Group: group, Record: first, TTL: time.Hour})
	id := second.Keys[0].ID
	if got := status(c, start.Add(time.Second), id); got != admission.KeyMissing {
		t.Fatalf("status %d: forged key ids make us ask at will", got)
	}
	at := start.Add(negativeTTL)
	if got := status(c, at, id); got != admission.KeyUnknown || len(c.Wanted()) != 1 {
		t.Fatalf("status %d: a new key is not looked for", got)
	}
	if got := status(c, at, first.Keys[0].ID); got != admission.KeyKnown {
		t.Fatalf("status %d of the old key meanwhile", got)
	}
	second.Keys = append(second.Keys, first.Keys...)
	c.Put(at, Answer{Group: group, Record: second, TTL: time.Hour})
	if status(c, at, id) != admission.KeyKnown || status(c, at, first.Keys[0].ID) != admission.KeyKnown {
		t.Fatal("both keys are in the record")
	}
}

func TestCacheSessions(t *testing.T) {
	c := NewCache(24 * time.Hour)
	r := testRecord(t, 1, "Mon-Fri 08:00-18:00 UTC")
	id := r.Keys[0].ID
	status(c, start, id)
	c.Put(start, Answer{Group: group, Record: r, TTL: 24 * time.Hour})
	if !c.Key(start, group, id).Open || c.Key(start.Add(10*time.Hour), group, id).Open {
		t.Fatal("Monday 09:00 is in session, 19:00 is not")
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := NewCache(time.Hour)
	for i := range entriesMax + 10 {
		c.Key(start, netip.AddrFrom4([4]byte{239, 1, byte(i >> 8), byte(i)}), 1)
	}
	if len(c.entries) != entriesMax || len(c.Wanted()) != entriesMax {
		t.Fatalf("%d entries", len(c.entries))
	}
	if got := status(c, start, 1); got != admission.KeyMissing {
		t.Fatalf("status %d where there is no room to ask", got)
	}
	for i := range entriesMax {
		c.Put(start, Answer{Group: netip.AddrFrom4([4]byte{239, 1, byte(i >> 8), byte(i)}), Err: record.ErrNone})
	}
	if got := status(c, start, 1); got != admission.KeyUnknown {
		t.Fatalf("status %d: groups that do not exist keep others out", got)
	}
}

func writeRecords(t *testing.T, path string, records ...record.Record) {
	t.Helper()
	text, err := record.Marshal(records...)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPinned(t *testing.T) {
	dir := t.TempDir()
	now := start
	p := NewPinned([]string{dir}, func() time.Time { return now })
	if _, _, err := p.Fetch(t.Context(), group); !errors.Is(err, record.ErrNone) {
		t.Fatalf("empty directory: %v", err)
	}
	r := testRecord(t, 1, "")
	writeRecords(t, filepath.Join(dir, "shop.yaml"), r)
	now = now.Add(time.Second)
	got, ttl, err := p.Fetch(t.Context(), group)
	if err != nil || !got.Equal(r) || ttl != pinnedTTL {
		t.Fatalf("%+v, %v, %v", got, ttl, err)
	}
	writeRecords(t, filepath.Join(dir, "other.yaml"), testRecord(t, 2, ""))
	if err := p.Check(); err == nil {
		t.Fatal("two records of one group are taken")
	}
	if err := NewPinned([]string{filepath.Join(dir, "none")}, time.Now).Check(); err == nil {
		t.Fatal("a missing file is taken")
	}
}

type fakeSource struct {
	record record.Record
	err    error
}

func (f fakeSource) Fetch(context.Context, netip.Addr) (record.Record, time.Duration, error) {
	return f.record, time.Minute, f.err
}

func TestSources(t *testing.T) {
	r, broken := testRecord(t, 1, ""), errors.New("broken")
	none := fakeSource{err: record.ErrNone}
	if got, _, err := (Sources{none, fakeSource{record: r}}).Fetch(t.Context(), group); err != nil || !got.Equal(r) {
		t.Fatalf("%v", err)
	}
	if _, _, err := (Sources{none, fakeSource{err: broken}}).Fetch(t.Context(), group); !errors.Is(err, broken) || errors.Is(err, record.ErrNone) {
		t.Fatalf("a failure is taken for no group: %v", err)
	}
	if _, _, err := (Sources{none}).Fetch(t.Context(), group); !errors.Is(err, record.ErrNone) {
		t.Fatalf("%v", err)
	}
}

func TestFetcher(t *testing.T) {
	f := NewFetcher(fakeSource{record: testRecord(t, 1, "")})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { f.Run(ctx); close(done) }()
	f.Ask(Question{Group: group})
	if a := <-f.Answers(); a.Err != nil || a.Group != group || a.TTL != time.Minute {
		t.Fatalf("answer %+v", a)
	}
	cancel()
	<-done
}

// slowSource tells which groups it was asked for, and answers when it is let.
type slowSource struct {
	asked chan netip.Addr
	let   chan struct{}
}

func (s slowSource) Fetch(ctx context.Context, g netip.Addr) (record.Record, time.Duration, error) {
	s.asked <- g
	select {
	case <-s.let:
	case <-ctx.Done():
	}
	return record.Record{}, 0, record.ErrNone
}

func TestGroupsInUseAreAskedForFirst(t *testing.T) {
	c := NewCache(time.Hour)
	if c.Key(start, group, 1); c.Wanted()[0].Known {
		t.Fatal("a new group is known")
	}
	c.Put(start, Answer{Group: group, Record: testRecord(t, 1, ""), TTL: time.Minute})
	c.Key(start, group, 1)
	c.Tick(start.Add(50 * time.Second))
	q := c.Wanted()
	if len(q) != 1 || !q[0].Known {
		t.Fatalf("questions %v, want the renewal of a known group", q)
	}

	source := slowSource{asked: make(chan netip.Addr, 3*fetchesMax), let: make(chan struct{})}
	f := NewFetcher(source)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { f.Run(ctx); close(done) }()
	for i := range 2 * fetchesMax {
		f.Ask(Question{Group: netip.AddrFrom4([4]byte{239, 1, 0, byte(i)})})
	}
	for range fetchesMax {
		<-source.asked
	}
	f.Ask(q[0])
	source.let <- struct{}{}
	if g := <-source.asked; g != group {
		t.Errorf("%v is asked for before the group in use", g)
	}
	cancel()
	<-done
}
