package joiner

import (
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
)

var (
	start  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	groupA = netip.MustParseAddr("239.80.80.80")
	groupB = netip.MustParseAddr("239.80.80.81")
	key    = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))
	config = Config{
		Requester: netip.MustParseAddr("10.2.0.2"), Link: netip.MustParsePrefix("10.2.0.0/24"),
		Refresh: 10 * time.Second, Resend: time.Second, Robustness: 3,
	}
)

func slots(n int) portion.Set {
	var s portion.Set
	for i := range n {
		s.Permit = append(s.Permit, portion.Portion{
			Addr: netip.AddrFrom4([4]byte{0, 0, byte(i >> 8), byte(i)}), Mask: netip.MustParseAddr("0.0.255.255"),
		})
	}
	return s
}

func member(group netip.Addr, number uint64, portions int) Membership {
	return Membership{Group: group, Epoch: epoch.Epoch{Term: 1, Number: number}, Owner: slots(portions)}
}

// rig is a Joiner with a clock of its own; it holds what the protocol demands of every join ever sent.
type rig struct {
	*Joiner
	t      *testing.T
	now    time.Time
	ring   *Keyring
	last   time.Time
	random map[[16]byte]bool
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, now: start, ring: &Keyring{}, random: map[[16]byte]bool{}}
	r.ring.Set([]Key{{groupA, 7, key}, {groupB, 8, key}})
	var err error
	if r.Joiner, err = New(config, r.ring, rand.NewChaCha8([32]byte{1})); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) set(want ...Membership) {
	r.t.Helper()
	if err := r.Set(r.now, want); err != nil {
		r.t.Fatal(err)
	}
}

// due returns the joins that are due and how long the Joiner wants to be left alone then, 0 for ever.
func (r *rig) due() ([]join.Signed, time.Duration, error) {
	r.t.Helper()
	reports, next, err := r.Due(r.now)
	var joins []join.Signed
	for _, b := range reports {
		m, err := igmp.Parse(b)
		if err != nil {
			r.t.Fatal(err)
		}
		list, err := join.FromReport(m.(igmp.Report))
		if err != nil {
			r.t.Fatal(err)
		}
		joins = append(joins, list...)
	}
	for _, s := range joins {
		if !s.Verify(key.Public().(ed25519.PublicKey)) {
			r.t.Errorf("join of %v at %v: bad signature", s.Group, s.Time)
		}
		if !s.Time.After(r.last) {
			r.t.Errorf("join stamped %v after one stamped %v", s.Time, r.last)
		}
		if r.random[s.Random] {
			r.t.Errorf("random key %x used again", s.Random)
		}
		r.last, r.random[s.Random] = s.Time, true
	}
	if next.IsZero() {
		return joins, 0, err
	}
	return joins, next.Sub(r.now), err
}

// want checks what is due now, as in "A4 B4": group, record type.
func (r *rig) want(joins string, next time.Duration) {
	r.t.Helper()
	list, wait, err := r.due()
	if err != nil {
		r.t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		name := map[netip.Addr]string{groupA: "A", groupB: "B"}[s.Group]
		got = append(got, name+map[igmp.RecordType]string{igmp.ModeIsExclude: "=", igmp.ChangeToExclude: "+", igmp.ChangeToInclude: "-"}[s.Record().Type])
	}
	if text := strings.Join(got, " "); text != joins || wait != next {
		r.t.Errorf("at %v: sent %q, next in %v; want %q, %v", r.now.Sub(start), text, wait, joins, next)
	}
}

func (r *rig) after(d time.Duration) *rig { r.now = r.now.Add(d); return r }

func TestChangeIsSentRobustnessTimesThenRefreshed(t *testing.T) {
	r := newRig(t)
	r.want("", 0)
	r.set(member(groupA, 1, 3))
	r.want("A+", time.Second)
	r.after(time.Second).want("A+", time.Second)
	r.set(member(groupA, 1, 3)) // nothing new
	r.after(time.Second).want("A+", 10*time.Second)
	r.after(10*time.Second).want("A=", 10*time.Second)
	r.set(member(groupA, 2, 3))
	r.want("A+", time.Second)
}

func TestLeaveIsSentRobustnessTimes(t *testing.T) {
	r := newRig(t)
	r.set(member(groupA, 1, 3), member(groupB, 1, 2))
	r.want("A+ B+", time.Second)
	r.set(member(groupB, 1, 2))
	r.want("A-", time.Second)
	r.after(time.Second).want("A- B+", time.Second)
	r.after(time.Second).want("A- B+", 10*time.Second)
	r.after(10*time.Second).want("B=", 10*time.Second)
	r.set()
	r.want("B-", time.Second)
	r.after(time.Second).want("B-", time.Second)
	r.after(time.Second).want("B-", 0)
}

func TestJoinEndsALeave(t *testing.T) {
	r := newRig(t)
	r.set(member(groupA, 1, 3))
	r.want("A+", time.Second)
	r.set()
	r.want("A-", time.Second)
	r.set(member(groupA, 1, 3))
	r.want("A+", time.Second)
}

func TestGroupThatNobodyHeardOfIsNotLeft(t *testing.T) {
	r := newRig(t)
	r.set(member(groupA, 1, 3))
	r.set()
	r.want("", 0)
}

func TestQueryIsAnsweredWithinItsResponseTime(t *testing.T) {
	r := newRig(t)
	r.set(member(groupA, 1, 1), member(groupB, 1, 1))
	for range 3 {
		r.due()
		r.after(time.Second)
	}
	for _, q := range []struct {
		query igmp.Query
		want  string
	}{
		{igmp.Query{Version: 3, MaxResp: 500 * time.Millisecond}, "A= B="},
		{igmp.Query{Version: 2, MaxResp: 500 * time.Millisecond, Group: groupB}, "B="},
	} {
		if err := r.Query(r.now, q.query); err != nil {
			t.Fatal(err)
		}
		_, wait, _ := r.due()
		if wait >= q.query.MaxResp {
			t.Fatalf("answer planned in %v, the querier waits for %v", wait, q.query.MaxResp)
		}
		r.after(wait)
		joins, _, err := r.due()
		if err != nil || len(joins) != strings.Count(q.want, "=") || joins[len(joins)-1].Group != groupB || joins[0].Change {
			t.Errorf("query for %v: %d joins, error %v; want %s", q.query.Group, len(joins), err, q.want)
		}
		r.after(time.Second)
	}
	if err := r.Query(r.now, igmp.Query{Version: 3, Group: netip.MustParseAddr("239.9.9.9")}); err != nil {
		t.Fatal(err)
	}
	if joins, _, _ := r.due(); len(joins) != 0 {
		t.Errorf("%d joins for a group that is not ours", len(joins))
	}
}

func TestFloodOfQueriesIsAnsweredSlowly(t *testing.T) {
	r := newRig(t)
	r.set(member(groupA, 1, 1))
	sent := 0
	for range 1000 { // one a millisecond, each wants its answer at once
		if err := r.Query(r.now, igmp.Query{Version: 3}); err != nil {
			t.Fatal(err)
		}
		joins, _, _ := r.due()
		sent += len(joins)
		r.after(time.Millisecond)
	}
	if sent > 11 {
		t.Errorf("%d joins in a second", sent)
	}
}

func TestLargeSetGoesInParts(t *testing.T) {
	r := newRig(t)
	r.set(member(groupA, 1, 500))
	joins, _, err := r.due()
	if err != nil || len(joins) != 4 {
		t.Fatalf("%d parts for 500 portions, error %v; want 4", len(joins), err)
	}
	a := join.NewAssembler(join.Limits{})
	for i, s := range joins {
		set, complete, err := a.Add(r.now, s)
		if err != nil || complete != (i == 3) {
			t.Fatalf("part %d: complete %v, error %v", i+1, complete, err)
		}
		if complete && len(set.Owner.Permit) != 500 {
			t.Errorf("%d portions arrived", len(set.Owner.Permit))
		}
	}
}

func TestMissingKeyHoldsUpItsGroupOnly(t *testing.T) {
	r := newRig(t)
	r.ring.Set([]Key{{groupB, 8, key}})
	r.set(member(groupA, 1, 1), member(groupB, 1, 1))
	joins, wait, err := r.due()
	if !errors.Is(err, ErrNoKey) || len(joins) != 1 || joins[0].Group != groupB || joins[0].KeyID != 8 || wait != time.Second {
		t.Fatalf("%d joins, next in %v, error %v; want B's under key 8, ErrNoKey for A", len(joins), wait, err)
	}
	r.ring.Set([]Key{{groupA, 7, key}, {groupB, 8, key}})
	r.after(time.Second).want("A+ B+", time.Second)
}

func TestUnsigned(t *testing.T) {
	cfg := config
	cfg.Unsigned = true
	j, err := New(cfg, nil, rand.NewChaCha8([32]byte{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Set(start, []Membership{member(groupA, 1, 1)}); err != nil {
		t.Fatal(err)
	}
	reports, _, err := j.Due(start)
	if err != nil || len(reports) != 1 {
		t.Fatalf("%d reports, error %v", len(reports), err)
	}
	m, err := igmp.Parse(reports[0])
	if err != nil {
		t.Fatal(err)
	}
	if joins, err := join.FromReport(m.(igmp.Report)); err != nil || len(joins) != 1 || len(joins[0].Signature) != 0 {
		t.Errorf("%d joins, error %v; want one without signature", len(joins), err)
	}
}

func TestClockThatGoesBack(t *testing.T) {
	r := newRig(t)
	r.set(member(groupA, 1, 1))
	r.want("A+", time.Second)
	r.after(-500 * time.Millisecond).set(member(groupA, 2, 1))
	r.want("A+", time.Second) // the rig checks that the time grows all the same

	r.last = time.Time{}
	r.after(-time.Hour).set(member(groupA, 3, 1))
	joins, _, err := r.due()
	if err != nil || len(joins) != 1 || !joins[0].Time.Equal(r.now) {
		t.Errorf("clock set back by an hour: joins %v, error %v; want one stamped with the new time", joins, err)
	}
}

func TestSetRefusesAndGoesOn(t *testing.T) {
	r := newRig(t)
	r.set(member(groupA, 1, 1))
	r.want("A+", time.Second)
	huge := member(groupA, 2, 1)
	huge.Owner.Permit = make([]portion.Portion, 100_000)
	unicast := member(netip.MustParseAddr("10.0.0.1"), 1, 1)
	err := r.Set(r.now, []Membership{huge, unicast, member(groupB, 1, 1), member(groupB, 2, 1)})
	for _, part := range []string{"too large", "no IPv4 multicast", "twice"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want it to say %q", err, part)
		}
	}
	r.want("B+", time.Second)
	if got := r.Groups(); len(got) != 2 || r.groups[groupA].Epoch.Number != 1 {
		t.Errorf("groups %v, A at %v; want A as it was, and B", got, r.groups[groupA].Epoch)
	}
}
