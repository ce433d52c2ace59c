package records

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/record"
)

var (
	start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
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

func status(c *Cache, now time.Time) Status {
	_, _, s := c.Record(now, group)
	return s
}

func TestCacheTellsHowLong(t *testing.T) {
	c := NewCache(time.Minute)
	for ttl, want := range map[time.Duration]time.Duration{10 * time.Second: 10 * time.Second, time.Hour: time.Minute, 0: time.Second} {
		c.Record(start, group)
		c.Put(start, Answer{Address: group, Record: testRecord(t, 1, ""), TTL: ttl})
		_, until, s := c.Record(start, group)
		if s != Found || !until.Equal(start.Add(want)) || status(c, until.Add(-1)) != Found || status(c, until) != Unknown {
			t.Errorf("TTL %v: %v until %v", ttl, s, until)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := NewCache(time.Hour)
	for i := range entriesMax + 10 {
		c.Record(start, netip.AddrFrom4([4]byte{239, 1, byte(i >> 8), byte(i)}))
	}
	if len(c.entries) != entriesMax || len(c.Wanted()) != entriesMax {
		t.Fatalf("%d entries", len(c.entries))
	}
	if got := status(c, start); got != None {
		t.Fatalf("status %d where there is no room to ask", got)
	}
	for i := range entriesMax {
		c.Put(start, Answer{Address: netip.AddrFrom4([4]byte{239, 1, byte(i >> 8), byte(i)}), Err: record.ErrNone})
	}
	if got := status(c, start); got != Unknown {
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
	f.Ask(Question{Address: group})
	if a := <-f.Answers(); a.Err != nil || a.Address != group || a.TTL != time.Minute {
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
	if c.Record(start, group); c.Wanted()[0].Known {
		t.Fatal("a new group is known")
	}
	c.Put(start, Answer{Address: group, Record: testRecord(t, 1, ""), TTL: time.Minute})
	c.Record(start, group)
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
		f.Ask(Question{Address: netip.AddrFrom4([4]byte{239, 1, 0, byte(i)})})
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
