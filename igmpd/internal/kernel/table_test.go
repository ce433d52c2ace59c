package kernel

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
	"golang.org/x/sys/unix"
)

// recorder is a kernel's table that notes what is done to it.
type recorder struct{ calls []string }

func (r *recorder) note(format string, a ...any) error {
	r.calls = append(r.calls, fmt.Sprintf(format, a...))
	return nil
}
func (r *recorder) AddVIF(vif, ifindex int) error { return r.note("add vif %d if %d", vif, ifindex) }
func (r *recorder) DelVIF(vif int) error          { r.note("del vif %d", vif); return unix.EADDRNOTAVAIL }
func (r *recorder) Put(e mroute.Entry) error      { return r.note("put %v", e) }
func (r *recorder) Delete(e mroute.Entry) error   { return r.note("delete %v", e) }
func (r *recorder) Flush() error                  { return r.note("flush") }
func (r *recorder) Close() error                  { return r.note("close") }
func (r *recorder) expect(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(r.calls)
	slices.Sort(want)
	if d := cmp.Diff(want, r.calls); d != "" {
		t.Error(d)
	}
	r.calls = nil
}

func TestTableReconciles(t *testing.T) {
	k := &recorder{}
	fromU := mroute.Entry{Group: group, Parent: 0, Out: 0b101}
	fromV := mroute.Entry{Group: group, Parent: 1, Out: 0b110}
	exact := mroute.Entry{Source: source, Group: group, Parent: 0, Out: 0b100}
	found := mroute.Table{VIFs: map[int]int{0: 10, 2: 12}, Entries: []mroute.Entry{fromU, exact}}
	tab, err := adopt(k, found, map[int]int{10: 0})
	if err != nil {
		t.Fatal(err)
	}
	k.expect(t)

	// Taken over: only what is new is added, only what is old goes.
	vifs := map[int]int{0: 10, 1: 11, 2: 12}
	entries := []mroute.Entry{fromU, fromV}
	if err := tab.ensure(vifs, entries); err != nil {
		t.Fatal(err)
	}
	k.expect(t, "add vif 1 if 11", "put "+fromV.String())
	if err := tab.prune(vifs, entries); err != nil {
		t.Fatal(err)
	}
	k.expect(t, "delete "+exact.String())

	for range 2 { // idempotent
		if err := tab.ensure(vifs, entries); err != nil {
			t.Fatal(err)
		}
		tab.prune(vifs, entries)
	}
	k.expect(t)

	// The interface of VIF 2 was made anew: the entries that name it are put again.
	vifs[2] = 22
	if err := tab.ensure(vifs, entries); err != nil {
		t.Fatal(err)
	}
	k.expect(t, "del vif 2", "add vif 2 if 22", "put "+fromU.String(), "put "+fromV.String())
}

func TestTableStartsAfreshWithOtherNumbers(t *testing.T) {
	k := &recorder{}
	found := mroute.Table{VIFs: map[int]int{3: 10}, Entries: []mroute.Entry{{Group: group, Parent: 3, Out: 0b1000}}}
	tab, err := adopt(k, found, map[int]int{10: 0})
	if err != nil {
		t.Fatal(err)
	}
	k.expect(t, "flush")
	if len(tab.vifs) != 0 || len(tab.entries) != 0 {
		t.Errorf("left: %+v", tab)
	}
}

func TestTableDeletesEntriesThatLostTheirParent(t *testing.T) {
	k := &recorder{}
	found := mroute.Table{VIFs: map[int]int{}, Lost: []mroute.Entry{{Group: group}}}
	for n := range mroute.VIFsMax {
		if n != 5 {
			found.VIFs[n] = 100 + n
		}
	}
	if _, err := adopt(k, found, nil); err != nil {
		t.Fatal(err)
	}
	k.expect(t, "delete "+mroute.Entry{Group: group, Parent: 5}.String())
}

func TestRules(t *testing.T) {
	config := ownerConfig()
	config.PublicTable = 500
	got := wantedRules(config, []uint32{500, 10001, 10007})
	want := []rule{
		{1000, 0, 0xff000fff, 500},
		{1001, 0x4d000001, 0xff000fff, 10001},
		{1001, 0x4d000007, 0xff000fff, 10007},
		{1002, 0, 0, 500},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	config.Mode, config.PublicTable = ModeSource, 0
	if got := wantedRules(config, []uint32{253}); got != nil {
		t.Errorf("source mode in the default table: %v", got)
	}
}

func TestInterfacesAreNumberedOnce(t *testing.T) {
	l := &Linux{numbers: map[string]int{}, adopted: map[int]int{100: 3}}
	seen := map[int]bool{}
	for i := range mroute.VIFsMax {
		n, err := l.number(fmt.Sprint("e", i), 100+i)
		if err != nil || seen[n] {
			t.Fatalf("e%d: %d %v", i, n, err)
		}
		seen[n] = true
	}
	if l.numbers["e0"] != 3 {
		t.Errorf("a former process' number is not kept: %d", l.numbers["e0"])
	}
	if n, err := l.number("e7", 999); err != nil || n != l.numbers["e7"] {
		t.Errorf("an interface made anew gets another number: %d %v", n, err)
	}
	if _, err := l.number("one more", 500); err == nil || !strings.Contains(err.Error(), "room for 32") {
		t.Errorf("33rd interface: %v", err)
	}
	l.forget(interfaces("e1"))
	if _, err := l.number("one more", 500); err != nil {
		t.Errorf("after others went: %v", err)
	}
}
