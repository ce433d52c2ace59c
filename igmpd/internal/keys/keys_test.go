package keys

import (
	"crypto/ed25519"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/igmpd/internal/admission"
	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/internal/records"
)

var (
	start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC) // a Monday
	group = netip.MustParseAddr("239.80.80.80")
)

// negativeTTL is how long records.Cache holds that there is no record, and that a record lacks a key.
const negativeTTL = 5 * time.Second

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

func status(c Cache, now time.Time, id uint32) admission.KeyStatus {
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
	if w := c.Wanted(); len(w) != 1 || w[0] != (records.Question{Address: group}) || len(c.Wanted()) != 0 {
		t.Fatalf("asked for %v", w)
	}
	c.Put(start, records.Answer{Address: group, Record: r, TTL: 10 * time.Second})
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
	c.Put(start, records.Answer{Address: group, Record: r, TTL: 100 * time.Hour})
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
	c.Put(start, records.Answer{Address: group, Record: r, TTL: 100 * time.Second})
	c.Tick(start.Add(80 * time.Second))
	if w := c.Wanted(); len(w) != 0 {
		t.Fatal("a record that nobody used is refreshed")
	}
	status(c, start.Add(80*time.Second), id)
	c.Tick(start.Add(80 * time.Second))
	if w := c.Wanted(); len(w) != 1 {
		t.Fatal("not refreshed before its time is over")
	}
	c.Put(start.Add(81*time.Second), records.Answer{Address: group, Err: errors.New("server is away")})
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
	c.Put(start, records.Answer{Address: group, Err: record.ErrNone})
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
	c.Put(start, records.Answer{Address: group, Record: first, TTL: time.Hour})
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
	c.Put(at, records.Answer{Address: group, Record: second, TTL: time.Hour})
	if status(c, at, id) != admission.KeyKnown || status(c, at, first.Keys[0].ID) != admission.KeyKnown {
		t.Fatal("both keys are in the record")
	}
}

func TestCacheSessions(t *testing.T) {
	c := NewCache(24 * time.Hour)
	r := testRecord(t, 1, "Mon-Fri 08:00-18:00 UTC")
	id := r.Keys[0].ID
	status(c, start, id)
	c.Put(start, records.Answer{Address: group, Record: r, TTL: 24 * time.Hour})
	if !c.Key(start, group, id).Open || c.Key(start.Add(10*time.Hour), group, id).Open {
		t.Fatal("Monday 09:00 is in session, 19:00 is not")
	}
}
