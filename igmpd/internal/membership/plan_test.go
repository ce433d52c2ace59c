package membership

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
)

// crowded is a table with an epoch of many servers, each on a port of its own; the last few are missing.
func crowded(t *testing.T, c crowd, missing int) *Table {
	t.Helper()
	table := New(testConfig())
	for i := range c.servers - missing {
		if _, err := table.Join(start, fmt.Sprint("p", i), c.join(start, i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	return table
}

// userOf is a user of a slot.
func userOf(slot int) string { return fmt.Sprintf("10.9.%d.%d", slot>>8, slot&0xff) }

// check makes sure that each slot's users go to who has it by the epoch with that number.
func (c crowd) check(t *testing.T, table *Table, number int, but map[int]string) {
	t.Helper()
	for slot := range c.slots {
		want := fmt.Sprint("p", (slot+number)%c.servers)
		if other, ok := but[slot]; ok {
			want = other
		}
		if got, _ := who(table, userOf(slot)); got != want {
			t.Fatalf("slot %d goes to %q, want %q", slot, got, want)
		}
	}
}

func refusals(actions []Action) (all []Refused) {
	for _, a := range actions {
		if r, ok := a.(Refused); ok {
			all = append(all, r)
		}
	}
	return all
}

// Large groups' plans are made once for all that has come together, and say then what they would have said one by one.
func TestLargeGroupSettles(t *testing.T) {
	c := crowd{300, 4096}
	table := crowded(t, c, 0)
	if r := refusals(table.Settle()); len(r) != 0 {
		t.Fatalf("refused: %v", r)
	}
	c.check(t, table, 1, nil)
	now := start.Add(time.Second)
	for i := range c.servers {
		actions, err := table.Join(now, fmt.Sprint("p", i), c.join(now, i, 2))
		if err != nil || !changed(actions) {
			t.Fatalf("server %d: %v, changed %v", i, err, changed(actions))
		}
	}
	c.check(t, table, 1, nil)
	table.Settle()
	c.check(t, table, 2, nil)
	plan := table.Private()[private].Plan
	if err := table.private[private].renew(); err != nil || !table.Private()[private].Plan.Equal(plan) {
		t.Errorf("made again, the plan is another one (%v)", err)
	}
	// Whoever is silent, and whoever leaves, too.
	if !changed(table.SetHealth(now, c.requester(7), Silent)) {
		t.Error("silence is no change")
	}
	table.Settle()
	but := map[int]string{}
	for slot := range c.slots {
		if (slot+2)%c.servers == 7 {
			but[slot] = "p6" // who stands by for it
		}
	}
	c.check(t, table, 2, but)
	if !changed(table.Tick(now.Add(2 * retirement))) {
		t.Error("the end of what was before is no change")
	}
}

// Who takes another's slot in the same epoch is refused among a thousand, too.
func TestOverlapAmongMany(t *testing.T) {
	c := crowd{1000, 8192}
	table := crowded(t, c, 0)
	thief := extended(start, netip.MustParseAddr("10.4.0.1"), 1, 1, portion.Set{Permit: []portion.Portion{c.slot(4321)}})
	if _, err := table.Join(start, "thief", thief); !errors.Is(err, ErrOverlap) {
		t.Errorf("slot of another: %v", err)
	}
	thief.Owner = set("0.0.0.0/0")
	thief.Owner.Deny = []portion.Portion{c.slot(17)}
	if _, err := table.Join(start, "thief", thief); !errors.Is(err, ErrOverlap) {
		t.Errorf("nearly everything: %v", err)
	}
	moved := c.join(start, 5, 1)
	moved.Owner.Permit[0] = c.slot(77)
	if _, err := table.Join(start, "p5", moved); !errors.Is(err, ErrOverlap) {
		t.Errorf("another set in the same epoch: %v", err)
	}
	table.Settle()
	c.check(t, table, 1, nil)
}

// What looks like all others and cannot be steered is taken back, and nothing else is.
func TestTakenBackWhereItCannotBeSteered(t *testing.T) {
	c := crowd{64, 65536}
	table := crowded(t, c, 2)
	prefix := set("1.2.0.0/255.255.0.0")
	harmless := extended(start, s1, 1, 1, portion.Set{Permit: prefix.Permit, Deny: prefix.Permit}) // makes the mask a known one
	if _, err := table.Join(start, "s1", harmless); err != nil {
		t.Fatal(err)
	}
	table.Settle()
	var tangle portion.Set // a prefix differs from slot to slot
	for i := range 20 {
		tangle.Permit = append(tangle.Permit, portion.MustParse(fmt.Sprintf("9.%d.0.0/16", i)))
	}
	for _, x := range []struct {
		port string
		join join.Signed
	}{
		{"p62", c.join(start, 62, 1)},
		{"evil", extended(start, s2, 1, 2, tangle)},
		{"p63", c.join(start, 63, 1)},
		{"p5", leaves(start, c.requester(5), 1)},
	} {
		if _, err := table.Join(start, x.port, x.join); err != nil {
			t.Fatalf("%s: %v", x.port, err)
		}
	}
	refused := refusals(table.Settle())
	if len(refused) != 1 || refused[0].Requester != s2 || refused[0].Port != "evil" || refused[0].Group != private || !errors.Is(refused[0].Err, ErrComplex) {
		t.Fatalf("refused: %+v", refused)
	}
	for _, m := range table.Members() {
		if m.Requester == s2 || m.Requester == c.requester(5) {
			t.Errorf("%v is still a member", m.Requester)
		}
	}
	but := map[int]string{}
	for slot := range c.slots {
		if (slot+1)%c.servers == 5 {
			but[slot] = ""
		}
	}
	c.check(t, table, 1, but)
	if r := refusals(table.Settle()); len(r) != 0 {
		t.Errorf("refused again: %v", r)
	}
}

func leaves(at time.Time, requester netip.Addr, number uint64) join.Signed {
	j := extended(at, requester, 1, number, nobody)
	j.Leave = true
	return j
}
