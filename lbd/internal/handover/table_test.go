package handover

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/epoch"
)

// The tables of doc.go are what the machines do, seen from outside: each transfer is brought to each step, each event happens to it, and
// what comes of it is a line, or nothing at all.

var (
	tableStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tableFlow  = Flow{Local: netip.MustParseAddrPort("192.0.2.1:443"), Remote: netip.MustParseAddrPort("10.1.0.1:40000")}
	tableEpoch = epoch.Epoch{Term: 1, Number: 2}
	tableBatch = BatchID{"taker", "web", tableEpoch}
	tableID    = ID{"giver", 7, 1}
	errTable   = errors.New("no")
)

// giverAt is a giver whose one transfer is at a step.
func giverAt(t *testing.T, at Step) *Giver {
	t.Helper()
	g := NewGiver("giver", 7, Limits{})
	ask := Ask{Service: "web", Epoch: tableEpoch, From: []string{"giver"}, Address: "10.0.0.2:8465"}
	if _, err := g.Asked(tableStart, Asked{"taker", ask, []Flow{tableFlow}, tableStart.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for _, next := range []event{onTurn, onReady, onExported, onFrozen, onLinkDown} {
		if s := g.Status(); len(s) == 1 && s[0].Step == at {
			return g
		}
		giverEvents[next](g, at)
	}
	return g
}

var giverEvents = map[event]func(g *Giver, at Step) []Action{
	onTurn: func(g *Giver, at Step) []Action {
		if at != Wanted && len(g.moving) > 0 {
			return nil // it has begun: another link is the end of the one before
		}
		return g.LinkUp(tableStart, "taker", 9)
	},
	onReady: func(g *Giver, _ Step) []Action { return g.Received(tableStart, "taker", Ready{tableID}) },
	onRefused: func(g *Giver, _ Step) []Action {
		return g.Received(tableStart, "taker", Refused{tableID, Why{Busy, ""}})
	},
	onExported:    func(g *Giver, _ Step) []Action { return g.Exported(tableStart, tableID, nil, nil) },
	onNotExported: func(g *Giver, _ Step) []Action { return g.Exported(tableStart, tableID, nil, errTable) },
	onFrozen:      func(g *Giver, _ Step) []Action { return g.Frozen(tableStart, tableID, nil, nil) },
	onNotFrozen:   func(g *Giver, _ Step) []Action { return g.Frozen(tableStart, tableID, nil, errTable) },
	onTook: func(g *Giver, at Step) []Action {
		if at == Doubting {
			return g.Verdict(tableStart, "taker", Verdict{tableID, Taken})
		}
		return g.Received(tableStart, "taker", Took{tableID})
	},
	onFailed: func(g *Giver, at Step) []Action {
		if at == Doubting {
			return g.Verdict(tableStart, "taker", Verdict{tableID, Never})
		}
		return g.Received(tableStart, "taker", Failed{tableID, Why{Kernel, ""}})
	},
	onUntold:   func(g *Giver, _ Step) []Action { return g.Verdict(tableStart, "taker", Verdict{tableID, Untold}) },
	onLinkDown: func(g *Giver, _ Step) []Action { return g.LinkDown(tableStart, "taker") },
	onStop:     func(g *Giver, _ Step) []Action { return g.Cancel(tableStart, tableBatch.Service) },
	onGone:     func(g *Giver, _ Step) []Action { return g.Silent(tableStart, "taker") },
	onLate: func(g *Giver, at Step) []Action {
		limit := map[Step]time.Duration{Exporting: g.limits.Give, Freezing: g.limits.Give, Sent: g.limits.Answer}[at]
		return g.Tick(tableStart.Add(max(limit, g.limits.Backoff)))
	},
	onGivenUp: func(g *Giver, at Step) []Action {
		if at != Doubting {
			return nil // nobody gives up before
		}
		return g.Tick(tableStart.Add(g.limits.Doubt))
	},
}

// takerAt is a taker whose one transfer is at a step.
func takerAt(t *testing.T, at Step) *Taker {
	t.Helper()
	k := NewTaker("taker", 9, "10.0.0.2:8465", Limits{})
	k.LinkUp(tableStart, "giver", 7)
	k.Offered(tableStart, "giver", Offer{Transfer{tableID, tableFlow}, "web", tableEpoch}, Why{})
	for _, next := range []event{onComing, onState, onRestored, onImported} {
		if s := k.Status(); len(s) == 1 && s[0].Step == at {
			return k
		}
		takerEvents[next](k, at)
	}
	return k
}

var takerEvents = map[event]func(k *Taker, at Step) []Action{
	onComing: func(k *Taker, _ Step) []Action { return k.Received(tableStart, "giver", Coming{tableID}) },
	onState:  func(k *Taker, _ Step) []Action { return k.Received(tableStart, "giver", State{ID: tableID}) },
	onCancel: func(k *Taker, _ Step) []Action {
		return k.Received(tableStart, "giver", Cancel{tableID, Why{Deadline, ""}})
	},
	onRestored:    func(k *Taker, _ Step) []Action { return k.Restored(tableStart, tableID, nil) },
	onNotRestored: func(k *Taker, _ Step) []Action { return k.Restored(tableStart, tableID, errTable) },
	onImported:    func(k *Taker, _ Step) []Action { return k.Imported(tableStart, tableID, nil) },
	onNotImported: func(k *Taker, _ Step) []Action { return k.Imported(tableStart, tableID, errTable) },
	onThawed:      func(k *Taker, _ Step) []Action { return k.Thawed(tableStart, tableID, nil) },
	onNotThawed:   func(k *Taker, _ Step) []Action { return k.Thawed(tableStart, tableID, errTable) },
	onQuery:       func(k *Taker, _ Step) []Action { return k.Asked(tableStart, "giver", Query{tableID, "taker", 9}) },
	onLinkDown:    func(k *Taker, _ Step) []Action { return k.LinkDown(tableStart, "giver") },
	onLate:        func(k *Taker, _ Step) []Action { return k.Tick(tableStart.Add(k.limits.Restore)) },
}

// line is what an event did to the only transfer, or nothing where it did nothing.
func line(at Step, on event, status []Status, actions []Action) string {
	next, words := at, []string(nil)
	if len(status) == 1 {
		next = status[0].Step
	}
	for _, a := range actions {
		name := strings.TrimPrefix(reflect.TypeOf(a).String(), "handover.")
		switch a := a.(type) {
		case Send:
			name = strings.TrimPrefix(reflect.TypeOf(a.Message).String(), "handover.") + "!"
		case Say:
			name = strings.TrimPrefix(reflect.TypeOf(a.Word).String(), "handover.") + "*"
			if v, ok := a.Word.(Verdict); ok {
				name = fmt.Sprintf("Verdict %v*", v.Fate)
			}
		case Report:
			next = Step(a.Outcome.String())
			continue
		case Arrived:
			if next = never; a.Live {
				next = live
			}
			continue
		case Finished, Dial:
			continue
		}
		words = append(words, name)
	}
	if next == at && len(words) == 0 {
		return ""
	}
	return strings.TrimRight(fmt.Sprintf("//\t%-10s %-13s %-10s %s", at, on, next, strings.Join(words, ", ")), " ") + "\n"
}

func TestTables(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var given, taken strings.Builder
	events := []event{onTurn, onReady, onRefused, onExported, onNotExported, onFrozen, onNotFrozen, onTook, onFailed, onUntold, onLinkDown, onLate,
		onStop, onGone, onGivenUp}
	rules := 0
	for _, at := range []Step{Wanted, Offered, Exporting, Freezing, Sent, Doubting} {
		for _, on := range events {
			g := giverAt(t, at)
			l := line(at, on, g.Status(), nil)
			if l != "" {
				t.Fatalf("a giver's transfer is at %v instead of %v", g.Status(), at)
			}
			actions := giverEvents[on](g, at)
			if l = line(at, on, g.Status(), actions); l != "" {
				rules++
			}
			given.WriteString(l)
		}
	}
	if n := len(giverTable()); n != rules {
		t.Errorf("%d of the giver's %d rules did something", rules, n)
	}
	rules = 0
	for _, at := range []Step{Held, Receiving, Restoring, Importing, Thawing} {
		for _, on := range []event{onComing, onState, onCancel, onRestored, onNotRestored, onImported, onNotImported, onThawed, onNotThawed, onQuery,
			onLinkDown, onLate} {
			k := takerAt(t, at)
			if l := line(at, on, k.Status(), nil); l != "" {
				t.Fatalf("a taker's transfer is at %v instead of %v", k.Status(), at)
			}
			actions := takerEvents[on](k, at)
			l := line(at, on, k.Status(), actions)
			if l != "" {
				rules++
			}
			taken.WriteString(l)
		}
	}
	if n := len(takerTable()) - 1; n != rules { // another part is the same step, with a new limit
		t.Errorf("%d of the taker's %d rules did something", rules, n)
	}
	for what, table := range map[string]string{"giver": given.String(), "taker": taken.String()} {
		if !strings.Contains(string(doc), "//\n"+table+"//\n") {
			t.Errorf("doc.go says otherwise of the %s:\n%s", what, table)
		}
	}
}
