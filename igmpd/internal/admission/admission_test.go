package admission

import (
	"crypto/ed25519"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
)

var (
	start     = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	group     = netip.MustParseAddr("239.80.80.80")
	requester = netip.MustParseAddr("10.3.0.2")
	neighbor  = netip.MustParseAddr("10.2.0.2")
	key       = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
)

const keyID = 7

// fakeKeys answers for keyID; others are missing.
type fakeKeys struct {
	status KeyStatus
	closed bool
	asked  int
}

func (f *fakeKeys) Key(_ time.Time, _ netip.Addr, id uint32) Key {
	f.asked++
	if f.status == KeyKnown && id != keyID {
		return Key{Status: KeyMissing}
	}
	return Key{f.status, key.Public().(ed25519.PublicKey), !f.closed}
}

func testConfig() Config {
	return Config{RequireSignature: true, Skew: 5 * time.Second, ReplayMax: 100, Rate: 10, Burst: 20, Wait: 2 * time.Second, WaitMax: 4}
}

func testPort() *Port {
	return &Port{Name: "lan", Members: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.3.0.0/24")}, Neighbors: []netip.Addr{neighbor}}
}

// testRoutes leads to 10.3/24 by lan.
func testRoutes(a netip.Addr) (string, bool) {
	return "lan", netip.MustParsePrefix("10.3.0.0/24").Contains(a)
}

func newChecker(keys Keys) *Checker { return New(testConfig(), keys, testRoutes, start) }

var randoms uint64

func testJoin(at time.Time) join.Join {
	randoms++
	j := join.Join{
		Group: group, Requester: requester, Link: netip.MustParsePrefix("10.3.0.0/24"), Time: at, Epoch: epoch.Epoch{Term: 1, Number: 1},
		Part: 1, Parts: 1, KeyID: keyID, Owner: portion.Set{Permit: []portion.Portion{portion.MustParse("0.0.0.1/0.0.0.1")}},
	}
	binary.BigEndian.PutUint64(j.Random[:], randoms)
	return j
}

func sign(t testing.TB, j join.Join) join.Signed {
	t.Helper()
	s, err := join.Sign(j, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func arrival(s join.Signed, at time.Time) Arrival {
	return Arrival{Join: s, Port: testPort(), Source: s.Requester, At: at}
}

func TestFigure6(t *testing.T) {
	now := start.Add(time.Minute)
	tests := []struct {
		name    string
		join    func(*join.Join)
		arrival func(*Arrival)
		keys    fakeKeys
		want    Verdict
	}{
		{name: "good", want: Verdict{Outcome: Admitted}},
		{name: "public group", join: func(j *join.Join) { j.Group = netip.MustParseAddr("231.1.1.1") }, want: Verdict{Outcome: Public}},
		{name: "lowest private group", join: func(j *join.Join) { j.Group = netip.MustParseAddr("232.0.0.0") }, want: Verdict{Outcome: Admitted}},
		{name: "unsigned", arrival: func(a *Arrival) {
			s, err := join.Unsigned(a.Join.Join)
			if err != nil {
				t.Fatal(err)
			}
			a.Join = s
		}, want: refused(Unsigned)},
		{name: "as early as may be", join: func(j *join.Join) { j.Time = now.Add(5 * time.Second) }, want: Verdict{Outcome: Admitted}},
		{name: "too early", join: func(j *join.Join) { j.Time = now.Add(5*time.Second + 1) }, want: refused(NotTimely)},
		{name: "too late", join: func(j *join.Join) { j.Time = now.Add(-5*time.Second - 1) }, want: refused(NotTimely)},
		{name: "no session now", keys: fakeKeys{closed: true}, want: refused(NotTimely)},
		{name: "another link's prefix", join: func(j *join.Join) { j.Link = netip.MustParsePrefix("10.9.0.0/24") }, want: refused(WrongLink)},
		{name: "a wider prefix", join: func(j *join.Join) { j.Link = netip.MustParsePrefix("10.0.0.0/8") }, want: refused(WrongLink)},
		{name: "requester outside its link", join: func(j *join.Join) { j.Requester = netip.MustParseAddr("10.4.0.2") }, want: refused(WrongLink)},
		{name: "port without members", arrival: func(a *Arrival) { a.Port.Members = false }, want: refused(WrongLink)},
		{name: "sent by another host", arrival: func(a *Arrival) { a.Source = netip.MustParseAddr("10.3.0.9") }, want: refused(WrongLink)},
		{name: "relayed", arrival: func(a *Arrival) { a.Source, a.Port.Members = neighbor, false }, want: Verdict{Outcome: Admitted}},
		{name: "relayed from off the way", arrival: func(a *Arrival) { a.Source, a.Port.Name = neighbor, "other" }, want: Verdict{Outcome: Redundant}},
		{name: "relayed for nowhere", join: func(j *join.Join) { j.Requester = netip.MustParseAddr("172.16.0.1") },
			arrival: func(a *Arrival) { a.Source = neighbor }, want: refused(WrongLink)},
		{name: "key not there", keys: fakeKeys{status: KeyMissing}, want: refused(NoKey)},
		{name: "another key's id", join: func(j *join.Join) { j.KeyID = 8 }, want: refused(NoKey)},
		{name: "key unknown", keys: fakeKeys{status: KeyUnknown}, want: Verdict{Outcome: Waiting}},
		{name: "changed after signing", arrival: func(a *Arrival) { a.Join.Raw[len(a.Join.Raw)-70] ^= 1 }, want: refused(BadSignature)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			keys := tt.keys
			if tt.name != "key unknown" && keys.status == KeyUnknown {
				keys.status = KeyKnown
			}
			c := newChecker(&keys)
			j := testJoin(now)
			if tt.join != nil {
				tt.join(&j)
			}
			a := arrival(sign(t, j), now)
			if tt.arrival != nil {
				tt.arrival(&a)
			}
			if got := c.Check(now, a); got != tt.want {
				t.Fatalf("verdict %d %v, want %d %v", got.Outcome, got.Reason, tt.want.Outcome, tt.want.Reason)
			}
		})
	}
}

func TestDuplicates(t *testing.T) {
	keys := &fakeKeys{status: KeyKnown}
	c := newChecker(keys)
	now := start.Add(time.Second)
	first := arrival(sign(t, testJoin(now)), now)
	want(t, c.Check(now, first), Verdict{Outcome: Admitted})
	want(t, c.Check(now, first), refused(Duplicate))

	forged := arrival(sign(t, testJoin(now.Add(1))), now)
	good := forged
	forged.Join.Signature = make([]byte, ed25519.SignatureSize)
	want(t, c.Check(now, forged), refused(BadSignature))
	want(t, c.Check(now, good), Verdict{Outcome: Admitted}) // a forged join must not burn the random key of the real one

	older := arrival(sign(t, testJoin(now.Add(-1))), now)
	want(t, c.Check(now, older), refused(NotTimely))
}

func TestPartsOfASetInAnyOrder(t *testing.T) {
	c := newChecker(&fakeKeys{status: KeyKnown})
	now := start.Add(time.Second)
	part := func(i uint8) Arrival {
		j := testJoin(now.Add(time.Duration(i - 1)))
		j.Part, j.Parts = i, 3
		return arrival(sign(t, j), now)
	}
	for _, i := range []uint8{3, 1, 2} {
		want(t, c.Check(now, part(i)), Verdict{Outcome: Admitted})
	}
	want(t, c.Check(now, part(2)), refused(NotTimely)) // the same part again, with another random key
}

// A full replay cache forgets random keys; the requester's last stamp still keeps the old joins out.
func TestFullReplayCache(t *testing.T) {
	c := newChecker(&fakeKeys{status: KeyKnown})
	now := start.Add(time.Second)
	old := arrival(sign(t, testJoin(now)), now)
	want(t, c.Check(now, old), Verdict{Outcome: Admitted})
	for i := range testConfig().ReplayMax + 1 {
		want(t, c.Check(now, arrival(sign(t, testJoin(now.Add(time.Duration(i+1)))), now)), Verdict{Outcome: Admitted})
	}
	if n := len(c.replay.seen); n != testConfig().ReplayMax {
		t.Fatalf("%d random keys kept, want %d", n, testConfig().ReplayMax)
	}
	want(t, c.Check(now, old), refused(NotTimely))
}

// Requesters beyond the table are refused until an entry is so old that its joins are not timely anyway.
func TestFullStampTable(t *testing.T) {
	cfg := testConfig()
	cfg.ReplayMax = 1
	c := New(cfg, &fakeKeys{status: KeyKnown}, testRoutes, start)
	now := start.Add(time.Second)
	want(t, c.Check(now, arrival(sign(t, testJoin(now)), now)), Verdict{Outcome: Admitted})
	other := func(at time.Time) Arrival {
		j := testJoin(at)
		j.Requester = netip.MustParseAddr("10.3.0.3")
		return arrival(sign(t, j), at)
	}
	want(t, c.Check(now, other(now)), refused(RateLimited))
	now = now.Add(cfg.Skew + 1)
	want(t, c.Check(now, other(now)), Verdict{Outcome: Admitted})
}

func TestRestartAndClockJump(t *testing.T) {
	c := newChecker(&fakeKeys{status: KeyKnown})
	want(t, c.Check(start, arrival(sign(t, testJoin(start.Add(-1))), start)), refused(NotTimely))
	now := start.Add(time.Hour)
	last := arrival(sign(t, testJoin(now)), now)
	want(t, c.Check(now, last), Verdict{Outcome: Admitted})

	back := start.Add(-time.Hour) // the router's clock had been ahead of everybody's
	other := testJoin(back)
	other.Requester = netip.MustParseAddr("10.3.0.3")
	want(t, c.Check(back, arrival(sign(t, other), back)), refused(NotTimely))
	c.Jumped(back)
	other.Random[0]++
	want(t, c.Check(back, arrival(sign(t, other), back)), Verdict{Outcome: Admitted})

	// The hour comes again; what was recorded in it does not.
	c.replay = newReplayCache(testConfig().ReplayMax)
	want(t, c.Check(now, last), refused(NotTimely))
}

func TestStampsOutliveTheProcess(t *testing.T) {
	c := newChecker(&fakeKeys{status: KeyKnown})
	now := start.Add(time.Second)
	a := arrival(sign(t, testJoin(now)), now)
	want(t, c.Check(now, a), Verdict{Outcome: Admitted})
	next := newChecker(&fakeKeys{status: KeyKnown})
	next.RestoreStamps(c.Stamps())
	want(t, next.Check(now, a), refused(NotTimely))
	want(t, next.Check(now, arrival(sign(t, testJoin(now.Add(1))), now)), Verdict{Outcome: Admitted})
}

func TestWaitingForTheKey(t *testing.T) {
	keys := &fakeKeys{}
	c := newChecker(keys)
	now := start.Add(time.Second)
	a := arrival(sign(t, testJoin(now)), now)
	b := arrival(sign(t, testJoin(now.Add(1))), now)
	want(t, c.Check(now, a), Verdict{Outcome: Waiting})
	want(t, c.Check(now, a), Verdict{Outcome: Waiting}) // a copy waits, too
	want(t, c.Check(now, b), Verdict{Outcome: Waiting})

	keys.status = KeyKnown
	now = now.Add(time.Second)
	var got []Verdict
	for _, r := range c.Resume(now, group) {
		got = append(got, r.Verdict)
	}
	if len(got) != 3 || got[0].Outcome != Admitted || got[1] != refused(Duplicate) || got[2].Outcome != Admitted || c.Waiting() != 0 {
		t.Fatalf("after the key came: %v, %d waiting", got, c.Waiting())
	}
}

func TestWaitingIsBounded(t *testing.T) {
	c := newChecker(&fakeKeys{})
	now := start.Add(time.Second)
	for i := range testConfig().WaitMax {
		want(t, c.Check(now, arrival(sign(t, testJoin(now.Add(time.Duration(i)))), now)), Verdict{Outcome: Waiting})
	}
	want(t, c.Check(now, arrival(sign(t, testJoin(now.Add(time.Hour))), now.Add(time.Hour))), refused(NoKey))
	if r := c.Expire(now.Add(2 * time.Second)); len(r) != 0 {
		t.Fatalf("%d expired at the limit", len(r))
	}
	r := c.Expire(now.Add(2*time.Second + 1))
	if len(r) != testConfig().WaitMax || r[0].Verdict != refused(NoKey) || c.Waiting() != 0 {
		t.Fatalf("expired: %v, %d still wait", r, c.Waiting())
	}
}

func TestRatePerPort(t *testing.T) {
	c := newChecker(&fakeKeys{})
	taken := 0
	for range 100 {
		if c.Allow(start, "lan") {
			taken++
		}
	}
	if taken != 20 {
		t.Fatalf("burst of %d, want 20", taken)
	}
	if !c.Allow(start, "other") {
		t.Fatal("one port's rate is another's")
	}
	if !c.Allow(start.Add(100*time.Millisecond), "lan") || c.Allow(start.Add(100*time.Millisecond), "lan") {
		t.Fatal("10 a second are not one in 100 ms")
	}
}

func TestReasonNames(t *testing.T) {
	want := []string{"unsigned", "duplicate", "not_timely", "wrong_link", "no_key", "bad_signature", "overlap", "stale_epoch", "rate_limited", "malformed"}
	got := Reasons()
	if len(got) != len(want) {
		t.Fatalf("%d reasons, want %d", len(got), len(want))
	}
	for i, r := range got {
		if r.String() != want[i] {
			t.Errorf("reason %d is %v, want %v", i, r, want[i])
		}
	}
}

func want(t *testing.T, got, want Verdict) {
	t.Helper()
	if got != want {
		t.Fatalf("verdict %d %v, want %d %v", got.Outcome, got.Reason, want.Outcome, want.Reason)
	}
}
