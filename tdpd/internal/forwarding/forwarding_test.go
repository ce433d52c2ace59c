package forwarding

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// parseHop reads address@index, here@index.
func parseHop(t *testing.T, s string) labels.NextHop {
	t.Helper()
	address, index, _ := strings.Cut(s, "@")
	n, err := strconv.Atoi(index)
	if err != nil {
		t.Fatal(err)
	}
	h := labels.NextHop{Interface: fmt.Sprint("eth", n), Index: n}
	if address != "here" {
		h.Address = netip.MustParseAddr(address)
	}
	return h
}

func parseLabel(t *testing.T, s string) wire.Label {
	t.Helper()
	if s == "none" {
		return labels.NoLabel
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return wire.Label(n)
}

// parseView reads "FEC kind local [not leaving] [via hop [label n]]... [plain]".
func parseView(t *testing.T, words []string) labels.View {
	t.Helper()
	v := labels.View{FEC: netip.MustParsePrefix(words[0]), Local: parseLabel(t, words[2]), Leaving: labels.NoLabel}
	for v.Kind = labels.Transit; v.Kind.String() != words[1]; v.Kind++ { // an unknown one panics
	}
	if words[len(words)-1] == "plain" {
		v.Plain, words = true, words[:len(words)-1]
	}
	for i := 3; i < len(words); i += 2 {
		switch words[i] {
		case "not":
			v.Leaving = parseLabel(t, words[i+1])
		case "via":
			v.Hops = append(v.Hops, labels.Hop{NextHop: parseHop(t, words[i+1]), Label: labels.NoLabel})
		case "label":
			v.Hops[len(v.Hops)-1].Label = parseLabel(t, words[i+1])
		default:
			t.Fatalf("%q in %q", words[i], words)
		}
	}
	return v
}

// text is entries as the file has them; tables, if given, has the operations.
func text(t *testing.T, tables *Tables, byLabel map[uint32][]kernel.Hop, byPrefix map[netip.Prefix][]kernel.Hop) string {
	var lines []string
	add := func(name string, hops []kernel.Hop, nhlfes []NHLFE) {
		if hops == nil {
			lines = append(lines, name+" -")
			return
		}
		if len(nhlfes) != len(hops) {
			t.Fatalf("%s: %v for %v", name, hops, nhlfes)
		}
		var list []string
		for i, h := range hops {
			one := fmt.Sprint(nhlfes[i].Operation, " here@", h.Interface)
			if h.Via.IsValid() {
				one = fmt.Sprint(nhlfes[i].Operation, " ", h.Via, "@", h.Interface)
			}
			if h.Labels != nil {
				one += fmt.Sprint(" ", h.Labels)
			}
			list = append(list, one)
		}
		lines = append(lines, name+" "+strings.Join(list, ", "))
	}
	for label, hops := range byLabel {
		m, _ := tables.Incoming(wire.Label(label))
		add(fmt.Sprint(label), hops, m.NHLFEs)
	}
	for p, hops := range byPrefix {
		m, _ := tables.Outgoing(p)
		add(p.String(), hops, m.NHLFEs)
	}
	slices.Sort(lines)
	return cmp.Or(strings.Join(lines, "\n"), "nothing")
}

// step is one of the file.
type step struct {
	name           string
	views          []labels.View
	gone           []netip.Prefix
	changes, state []string
}

func (s *step) line(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	rest := strings.Join(words[1:], " ")
	switch words[0] {
	case "->":
		s.changes = append(s.changes, rest)
	case "=":
		s.state = append(s.state, rest)
	case "gone":
		s.gone = append(s.gone, netip.MustParsePrefix(rest))
	default:
		s.views = append(s.views, parseView(t, words))
	}
}

func readSteps(t *testing.T) (steps []step) {
	t.Helper()
	file, err := os.ReadFile("testdata/forwarding.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		line = strings.TrimSpace(line)
		if name, is := strings.CutPrefix(line, "== "); is {
			steps = append(steps, step{name: name})
		} else if line != "" && line[0] != '#' {
			steps[len(steps)-1].line(t, line)
		}
	}
	return steps
}

func TestForwarding(t *testing.T) {
	tables := New()
	for _, s := range readSteps(t) {
		changes := tables.Update(s.views, s.gone)
		slices.Sort(s.changes)
		if got, want := text(t, tables, changes.Labels, changes.Prefixes), strings.Join(s.changes, "\n"); got != want {
			t.Errorf("%s\ngot\n%s\nwant\n%s", s.name, got, want)
		}
		if s.state == nil {
			continue
		}
		slices.Sort(s.state)
		state := tables.State()
		if got, want := text(t, tables, state.Labels, state.Prefixes), strings.Join(s.state, "\n"); got != want {
			t.Errorf("%s\nall there is\n%s\nwant\n%s", s.name, got, want)
		}
	}
}

// world makes views at random, of few FECs, so that they meet.
type world struct {
	*rand.Rand
	free []wire.Label
	at   map[netip.Prefix]labels.View
}

func (w *world) prefix() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(w.IntN(8))}), 32)
}

// label gives one out, or takes none.
func (w *world) label() wire.Label {
	switch w.IntN(8) {
	case 0:
		return labels.NoLabel
	case 1:
		return wire.LabelImplicitNull
	}
	i := w.IntN(len(w.free))
	label := w.free[i]
	w.free = slices.Delete(w.free, i, i+1)
	return label
}

func (w *world) view(p netip.Prefix) labels.View {
	v := labels.View{FEC: p, Kind: labels.Kind(w.IntN(3)), Local: w.label(), Leaving: labels.NoLabel}
	if !comesIn(v.Local) {
		v.Leaving = w.label()
	}
	for i := range w.IntN(4) {
		h := labels.Hop{NextHop: labels.NextHop{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Index: 2}, Label: labels.NoLabel}
		if v.Kind == labels.Transit {
			h.Label = []wire.Label{labels.NoLabel, wire.LabelExplicitNullIPv4, wire.LabelImplicitNull, 50}[w.IntN(4)]
		}
		v.Hops = append(v.Hops, h)
	}
	return v
}

func (w *world) drop(p netip.Prefix) {
	for _, label := range []wire.Label{w.at[p].Local, w.at[p].Leaving} {
		if comesIn(label) {
			w.free = append(w.free, label)
		}
	}
	delete(w.at, p)
}

// change changes some FECs, each once; a label may be another's at once.
func (w *world) change() (views []labels.View, gone []netip.Prefix) {
	touched := map[netip.Prefix]bool{}
	for range 1 + w.IntN(4) {
		p := w.prefix()
		if touched[p] {
			continue
		}
		touched[p] = true
		w.drop(p)
		if w.IntN(4) == 0 {
			gone = append(gone, p)
			continue
		}
		v := w.view(p)
		w.at[p] = v
		views = append(views, v)
	}
	w.Shuffle(len(views), func(i, j int) { views[i], views[j] = views[j], views[i] })
	return views, gone
}

func apply[K comparable](to, changes map[K][]kernel.Hop) (idle bool) {
	for k, hops := range changes {
		idle = idle || equal(to[k], hops)
		if hops == nil {
			delete(to, k)
		} else {
			to[k] = hops
		}
	}
	return idle
}

// TestChangesAddUp: the changes, one upon the other, are the state, none is idle, and the state is that of Tables that got all views
// at once. What has a label leaves by bindings alone.
func TestChangesAddUp(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		w := &world{Rand: rand.New(rand.NewPCG(seed, 1)), at: map[netip.Prefix]labels.View{}}
		for label := wire.Label(16); label < 28; label++ {
			w.free = append(w.free, label)
		}
		tables := New()
		sum := kernel.State{Labels: map[uint32][]kernel.Hop{}, Prefixes: map[netip.Prefix][]kernel.Hop{}}
		for step := range 50 {
			changes := tables.Update(w.change())
			if apply(sum.Labels, changes.Labels) || apply(sum.Prefixes, changes.Prefixes) {
				t.Fatalf("seed %d step %d: idle changes in %v", seed, step, changes)
			}
			afresh, all := New(), []labels.View{}
			for _, v := range w.at {
				all = append(all, v)
			}
			afresh.Update(all, nil)
			for _, state := range []kernel.State{tables.State(), afresh.State()} {
				if d := gocmp.Diff(sum, state, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); d != "" {
					t.Fatalf("seed %d step %d: %s", seed, step, d)
				}
			}
			complete(t, w, tables)
		}
	}
}

// complete checks the tables against the views, one by one.
func complete(t *testing.T, w *world, tables *Tables) {
	t.Helper()
	ilm, ftn := tables.ILM(0, math.MaxInt), tables.FTN(netip.Prefix{}, math.MaxInt)
	if n, m := tables.Size(); n != len(ilm) || m != len(ftn) {
		t.Fatalf("size %d and %d, entries %d and %d", n, m, len(ilm), len(ftn))
	}
	for _, v := range w.at {
		if comesIn(v.Leaving) {
			v.Local = v.Leaving
		}
		at, has := slices.BinarySearchFunc(ilm, v.Local, func(m ILM, l wire.Label) int { return cmp.Compare(m.Label, l) })
		if has != comesIn(v.Local) || has && (ilm[at].FEC != v.FEC || ilm[at].Kind != v.Kind) {
			t.Fatalf("%v: not in %v", v, ilm)
		}
		bindings := 0
		for _, h := range v.Hops {
			if h.Label != labels.NoLabel {
				bindings++
			}
		}
		want := map[labels.Kind]int{labels.Transit: bindings, labels.Attached: 1, labels.Server: len(v.Hops)}[v.Kind]
		if has && len(ilm[at].NHLFEs) != want {
			t.Fatalf("%v: %d NHLFEs, want %d", v, len(ilm[at].NHLFEs), want)
		}
		_, has = slices.BinarySearchFunc(ftn, v.FEC, func(m FTN, p netip.Prefix) int { return m.FEC.Compare(p) })
		if has != (v.Kind == labels.Transit && bindings > 0) {
			t.Fatalf("%v: in FTN: %v", v, has)
		}
	}
}
