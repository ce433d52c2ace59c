package join

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manycast/manycast/internal/portion"
)

// parts makes an unsigned set of n parts, one portion each.
func parts(t *testing.T, epochNumber uint64, at time.Time, n int) []Signed {
	t.Helper()
	list := make([]Join, n)
	for i := range list {
		list[i] = testJoin()
		list[i].Epoch.Number = epochNumber
		list[i].Part, list[i].Parts = uint8(i+1), uint8(n)
		list[i].Owner = portion.Set{Permit: slots(n)[i : i+1]}
		list[i].Standby = portion.Set{}
	}
	if err := Stamp(list, at, rand.NewChaCha8([32]byte{byte(epochNumber)})); err != nil {
		t.Fatal(err)
	}
	signed := make([]Signed, n)
	for i, j := range list {
		var err error
		if signed[i], err = Unsigned(j); err != nil {
			t.Fatal(err)
		}
	}
	return signed
}

func add(t *testing.T, a *Assembler, s Signed, wantComplete bool, wantErr error) Set {
	t.Helper()
	set, complete, err := a.Add(testTime, s)
	if complete != wantComplete || !errors.Is(err, wantErr) {
		t.Fatalf("part %d/%d at %v of time %v: complete %v, error %v; want %v, %v",
			s.Part, s.Parts, s.Epoch, s.SetTime(), complete, err, wantComplete, wantErr)
	}
	return set
}

func TestAssemblerTakesAnyOrder(t *testing.T) {
	whole := parts(t, 1, testTime, 5)
	for range 50 {
		a := NewAssembler(Limits{})
		var set Set
		order := rand.Perm(5)
		for i, n := range order {
			set = add(t, a, whole[n], i == 4, nil)
			if i < 4 {
				add(t, a, whole[n], false, nil) // repeated
			}
		}
		if diff := cmp.Diff(slots(5), set.Owner.Permit, equate); diff != "" {
			t.Fatalf("order %v:\n%s", order, diff)
		}
		if diff := cmp.Diff(whole, set.Signed, equate, equateP); diff != "" {
			t.Fatalf("order %v:\n%s", order, diff)
		}
		if a.Pending() != 0 {
			t.Fatalf("%d sets pending at the end", a.Pending())
		}
	}
}

func TestAssemblerKeepsTheNewestSet(t *testing.T) {
	old, refreshed := parts(t, 1, testTime, 3), parts(t, 1, testTime.Add(time.Second), 3)
	next := parts(t, 2, testTime.Add(-time.Minute), 2) // a higher epoch wins, whatever its time
	a := NewAssembler(Limits{})
	add(t, a, old[0], false, nil)
	add(t, a, old[1], false, nil)
	add(t, a, refreshed[0], false, nil)
	add(t, a, old[2], false, ErrSuperseded)
	add(t, a, refreshed[1], false, nil)
	add(t, a, next[1], false, nil)
	add(t, a, refreshed[2], false, ErrSuperseded)
	if set := add(t, a, next[0], true, nil); set.Epoch.Number != 2 || len(set.Owner.Permit) != 2 {
		t.Errorf("set of epoch %v with %d portions", set.Epoch, len(set.Owner.Permit))
	}
}

func TestAssemblerRefusesMixedParts(t *testing.T) {
	three, four := parts(t, 1, testTime, 3), parts(t, 1, testTime, 4)
	a := NewAssembler(Limits{})
	add(t, a, three[0], false, nil)
	add(t, a, four[1], false, ErrMixed)
	other := three[1]
	other.Link = netip.MustParsePrefix("10.9.0.0/24")
	add(t, a, other, false, ErrMixed)
	add(t, a, three[1], false, nil)
	add(t, a, three[2], true, nil)
}

func TestAssemblerIsBounded(t *testing.T) {
	a := NewAssembler(Limits{Sets: 2, Portions: 4, Wait: time.Second})
	from := func(host byte, n int) []Signed {
		list := parts(t, 1, testTime, n)
		for i := range list {
			list[i].Requester = netip.AddrFrom4([4]byte{10, 2, 0, host})
		}
		return list
	}
	add(t, a, from(1, 3)[0], false, nil)
	add(t, a, from(2, 6)[0], false, nil)
	add(t, a, from(3, 3)[0], false, ErrFull)
	add(t, a, from(4, 1)[0], true, nil) // a whole set needs no room
	for i := 1; i < 4; i++ {
		add(t, a, from(2, 6)[i], false, nil)
	}
	add(t, a, from(2, 6)[4], false, ErrFull)
	if _, _, err := a.Add(testTime.Add(time.Second), from(3, 3)[0]); err != nil || a.Pending() != 1 {
		t.Errorf("after the wait: error %v, %d pending; want the torn sets to have made room", err, a.Pending())
	}
	if n := a.Expire(testTime.Add(2 * time.Second)); n != 1 || a.Pending() != 0 {
		t.Errorf("%d expired, %d pending", n, a.Pending())
	}
}

func TestAssemblerForgetsTornSet(t *testing.T) {
	a := NewAssembler(Limits{Wait: time.Second})
	set := parts(t, 1, testTime, 2)
	add(t, a, set[0], false, nil)
	if _, complete, err := a.Add(testTime.Add(time.Second), set[1]); complete || err != nil {
		t.Errorf("second part after the wait: complete %v, error %v", complete, err)
	}
	a.Forget(set[0].Requester, set[0].Group)
	if a.Pending() != 0 {
		t.Error("the set is not forgotten")
	}
}
