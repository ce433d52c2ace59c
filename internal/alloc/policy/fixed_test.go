package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
)

func alive(names ...string) []alloc.Server {
	var out []alloc.Server
	for _, n := range names {
		out = append(out, alloc.Server{Name: n, Weight: 1, Alive: true})
	}
	return out
}

func texts(fixed []alloc.Fixed) []string {
	out := []string{}
	for _, f := range fixed {
		text := f.Portion.String() + " " + f.Owner
		if f.Standby != "" {
			text += " " + f.Standby
		}
		out = append(out, text)
	}
	return out
}

func wantFixed(t *testing.T, d Decision, want ...string) {
	t.Helper()
	if got := texts(d.Fixed); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("fixed %q, want %q (%v)", got, want, d.Why)
	}
}

func TestGeoGivesPrefixesToTheFirstThatIsThere(t *testing.T) {
	in := Input{Rules: Rules{Policy: Geo, Slots: suffix8, Prefixes: []Prefix{prefix("10.0.0.0/8", "s1", "s2", "s3"), prefix("172.16.0.0/12", "s9")}}}
	in.Servers = alive("s1", "s2", "s3")
	wantFixed(t, Decide(in), "10.0.0.0/8 s1 s2") // nobody of 172.16.0.0/12 is there
	in.Servers[0].Drained = true
	wantFixed(t, Decide(in), "10.0.0.0/8 s2 s3")
	in.Servers[1].Alive = false
	wantFixed(t, Decide(in), "10.0.0.0/8 s3")
	if why := Decide(in).Why; len(why) != 1 || !why[0].Warning || !why[0].Refused || why[0].String() != "s9 may own nothing now; shared out with the rest: 172.16.0.0/12" {
		t.Errorf("why %v", why)
	}
	for _, policy := range []alloc.Policy{alloc.Equal, alloc.Weighted, Load, LeastConnections, Wanted} {
		in.Rules.Policy = policy
		wantFixed(t, Decide(in), "10.0.0.0/8 s3")
	}
}

func wants(portions ...string) alloc.Load {
	l := alloc.Load{CPU: 0.5}
	for _, p := range portions {
		l.Wanted = append(l.Wanted, portion.MustParse(p))
	}
	return l
}

// TestWantedAreGrantedOnce walks through askers that compete, hold, stop asking and die.
func TestWantedAreGrantedOnce(t *testing.T) {
	in := Input{
		Rules:   Rules{Policy: Wanted, Slots: suffix8, Prefixes: []Prefix{prefix("10.9.0.0/16", "s3")}},
		Servers: alive("s1", "s2", "s3"), Due: true,
		Loads: map[string]alloc.Load{
			"s1": wants("10.1.0.0/16", "10.9.1.0/24"), "s2": wants("10.1.0.0/16", "10.2.0.0/16", "0.0.0.0/1"), "s3": wants("128.0.0.0/1", "10.2.128.0/17"),
		},
	}
	d := Decide(in)
	wantFixed(t, d, "10.9.0.0/16 s3", "10.1.0.0/16 s1", "10.2.128.0/17 s3")
	why := fmt.Sprint(d.Why)
	for _, text := range []string{
		"s2 is refused (overlaps s1's 10.1.0.0/16) 10.1.0.0/16", "s1 is refused (overlaps s3's 10.9.0.0/16) 10.9.1.0/24",
		"s3 is refused (50% of the space, 50% left for it) 128.0.0.0/1", "s1 asked for 10.1.0.0/16",
		"s2 is refused (overlaps s3's 10.2.128.0/17) 10.2.0.0/16",
	} {
		if !strings.Contains(why, text) {
			t.Errorf("%s does not say %q", why, text)
		}
	}

	// s2 holds what s1 asks for, too.
	held := []alloc.Fixed{{Portion: portion.MustParse("10.1.0.0/16"), Owner: "s2"}}
	in.Loads["s1"] = wants("10.1.0.0/16")
	wantFixed(t, decide(in, held), "10.9.0.0/16 s3", "10.1.0.0/16 s2", "10.2.0.0/16 s2")
	in.Loads["s2"], in.Loads["s3"] = wants(), wants()
	wantFixed(t, decide(in, held), "10.9.0.0/16 s3", "10.1.0.0/16 s1")
	delete(in.Loads, "s2") // not heard of: that is no word
	wantFixed(t, decide(in, held), "10.9.0.0/16 s3", "10.1.0.0/16 s2")
}

func TestWantedIsBounded(t *testing.T) {
	in := Input{Rules: Rules{Policy: Wanted, Slots: suffix8, Balance: DefaultBalance()}, Due: true, Loads: map[string]alloc.Load{}}
	in.Servers = alive("s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9")
	in.Rules.Balance.Step = 1
	in.Loads["s1"] = wants("0.0.0.0/2", "64.0.0.0/3", "96.0.0.0/3") // 4/9 of the space at most
	for i, greedy := range []string{"s2", "s4", "s5", "s6", "s7"} {
		var all []string
		for k := range 64 {
			all = append(all, fmt.Sprintf("19%d.0.%d.0/24", i+2, k))
		}
		in.Loads[greedy] = wants(all...)
	}
	in.Loads["s3"] = wants("198.51.100.0/24")
	d := Decide(in)
	got, count := strings.Join(texts(d.Fixed), ","), map[string]int{}
	for _, f := range d.Fixed {
		count[f.Owner]++
	}
	if len(d.Fixed) != alloc.MaxFixed || !strings.Contains(got, "198.51.100.0/24 s3") || !strings.Contains(got, "64.0.0.0/3 s1") || strings.Contains(got, "96.0.0.0/3") {
		t.Errorf("%d fixed: %s", len(d.Fixed), got)
	}
	delete(in.Loads, "s1")
	for _, greedy := range []string{"s4", "s5", "s6", "s7"} {
		delete(in.Loads, greedy)
	}
	if d = Decide(in); len(d.Fixed) != alloc.MaxFixed/4+1 {
		t.Errorf("alone s2 gets %q", texts(d.Fixed))
	}
	if why := fmt.Sprint(d.Why); !strings.Contains(why, "s2 is refused (it has 16 portions, the most for one server)") {
		t.Error(why)
	}
}

// parts are the halves that slots by suffix are cut into.
func parts(q portion.Portion) (one, other portion.Portion) {
	one, other, _ = q.Halves(false)
	return one, other
}

// hotWorld is four servers of which s1 owns a hot slot.
func hotWorld() (Input, int) {
	in := Input{Rules: Rules{Policy: Load, Slots: suffix8, Balance: DefaultBalance()}, Servers: alive("s1", "s2", "s3", "s4"), Due: true}
	in.Current, _, _ = alloc.Next(alloc.Allocation{}, Decide(in).Want(in.Rules))
	in.Loads = map[string]alloc.Load{"s1": {CPU: 0.9}, "s2": {CPU: 0.5}, "s3": {CPU: 0.4}, "s4": {CPU: 0.5}}
	slot := 0
	for in.Current.OwnerOf(slot) != "s1" {
		slot++
	}
	return in, slot
}

func says(in Input, server string, portions ...alloc.Hot) {
	l := in.Loads[server]
	l.Hot = portions
	in.Loads[server] = l
}

// TestHotSlotsAreSplitAndJoined goes through the life of a split with its bounds.
func TestHotSlotsAreSplitAndJoined(t *testing.T) {
	in, slot := hotWorld()
	whole := in.Rules.Slots.Portion(slot)
	half, rest := parts(whole)
	if half.MaskBits() != 9 || half.Overlaps(rest) || !whole.Covers(half) || !whole.Covers(rest) {
		t.Fatalf("%v has halves %v and %v", whole, half, rest)
	}
	says(in, "s1", alloc.Hot{Portion: whole, Share: 0.3}) // 0.27 of a mean of 0.575: not hot
	wantFixed(t, decide(in, nil))
	says(in, "s1", alloc.Hot{Portion: whole, Share: 0.5})
	d := decide(in, nil)
	wantFixed(t, d, half.String()+" s3")
	if text := d.Why[0].String(); text != fmt.Sprintf("s3 is given half of %v, which is 78%% of a mean load: %v", whole, half) {
		t.Error(text)
	}
	held := d.Fixed

	says(in, "s1", alloc.Hot{Portion: whole, Share: 0.5}) // an old word of the whole
	wantFixed(t, decide(in, held), half.String()+" s3")
	quarter, _ := parts(rest)
	says(in, "s1", alloc.Hot{Portion: rest, Share: 0.5}) // the rest by itself is too hot
	wantFixed(t, decide(in, held), half.String()+" s3", quarter.String()+" s3")
	says(in, "s1", alloc.Hot{Portion: rest, Share: 0.2}) // 0.18: above a quarter of the mean
	wantFixed(t, decide(in, held), half.String()+" s3")
	says(in, "s1", alloc.Hot{Portion: rest, Share: 0.1})
	if d = decide(in, held); len(d.Fixed) != 0 || !strings.Contains(d.Why[0].String(), "gives back") {
		t.Errorf("a cold slot stays split: %v %v", texts(d.Fixed), d.Why)
	}
	in.Due = false
	wantFixed(t, decide(in, held), half.String()+" s3")
	in.Servers[2].Alive = false
	wantFixed(t, decide(in, []alloc.Fixed{{Portion: half, Owner: "s3", Standby: "s2"}}), half.String()+" s2")
	wantFixed(t, decide(in, held)) // no standby: back to the slot

	// The half given away is hot itself: it is halved where it is.
	in, _ = hotWorld()
	in.Loads["s3"] = alloc.Load{CPU: 0.9, Hot: []alloc.Hot{{Portion: half, Share: 0.8}}}
	one, two := parts(half)
	wantFixed(t, decide(in, held), two.String()+" s3", one.String()+" s2")
}

func TestLoneSourceStaysWhereItIs(t *testing.T) {
	in, slot := hotWorld()
	whole := in.Rules.Slots.Portion(slot)
	host := portion.MustParse(fmt.Sprintf("10.1.2.%d", slot))
	says(in, "s1", alloc.Hot{Portion: whole, Share: 0.55}, alloc.Hot{Portion: host, Share: 0.5})
	d := decide(in, nil)
	wantFixed(t, d, host.String()+" s1")
	wantFixed(t, decide(in, d.Fixed), host.String()+" s1")
	for _, s := range d.Servers {
		if s.Name == "s1" && s.Weight >= 64 {
			t.Errorf("s1 keeps %d slots beside its heavy user", s.Weight)
		}
	}
	// What is hot beside it is split.
	in.Loads["s1"] = alloc.Load{CPU: 1, Hot: []alloc.Hot{{Portion: whole, Share: 0.9}, {Portion: host, Share: 0.32}}}
	if d = decide(in, nil); len(d.Fixed) != 2 {
		t.Errorf("%q", texts(d.Fixed))
	}
}

// TestHotWordsAreBounded: who says that much is hot gives little away, and nothing of others.
func TestHotWordsAreBounded(t *testing.T) {
	in, _ := hotWorld()
	var all, others []alloc.Hot
	for slot := range 256 {
		h := alloc.Hot{Portion: in.Rules.Slots.Portion(slot), Share: 1}
		if in.Current.OwnerOf(slot) == "s1" {
			all = append(all, h)
		} else {
			others = append(others, h)
		}
	}
	says(in, "s1", others...)
	wantFixed(t, decide(in, nil))
	says(in, "s1", all...)
	held := []alloc.Fixed(nil)
	for range 50 {
		d := decide(in, held)
		if len(d.Fixed) > len(held)+maxNew || len(d.Fixed) > maxSplits/4 {
			t.Fatalf("from %d to %d portions", len(held), len(d.Fixed))
		}
		held = d.Fixed
	}
	says(in, "s1", alloc.Hot{Portion: portion.MustParse("0.0.0.0/0"), Share: 1}, alloc.Hot{Portion: portion.All6(), Share: 1}, alloc.Hot{Share: 1})
	wantFixed(t, decide(in, nil))
	// Nor does it keep split what is hot no more: what it says of all, and of others' slots, is no word of that.
	wantFixed(t, decide(in, held))
	says(in, "s1")
	says(in, "s2", all...)
	wantFixed(t, decide(in, held))
}
