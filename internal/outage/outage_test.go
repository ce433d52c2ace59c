package outage

import (
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
)

const silence = 250 * time.Millisecond

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func allocated() alloc.Allocation {
	return alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 1}, Servers: []string{"s1", "s2"},
		Owner: []uint16{0, 1}, Standby: []uint16{1, 0},
	}
}

// TestOutage: each case is what is heard long after the start, and whether "web" has no server a silence later.
func TestOutage(t *testing.T) {
	type said = map[string]control.Member
	available, silent := control.Member{Health: control.Available}, control.Member{Health: control.Silent}
	for name, test := range map[string]struct {
		said    said
		refused bool
	}{
		"all silent":                      {said{"r1": available, "s1": silent, "s2": silent}, true},
		"all dead or without application": {said{"r1": available, "s1": silent, "s2": {Health: control.Unwell, Why: "the application does not answer"}}, true},
		"never heard":                     {said{"r1": available}, true},
		"one serves":                      {said{"r1": available, "s1": silent, "s2": available}, false},
		"one hears nobody":                {said{"r1": available, "s1": silent, "s2": {Health: control.Unwell, Why: control.Deaf}}, false},
		"nothing known of one":            {said{"r1": available, "s1": silent, "s2": {Health: control.Unknown}}, false},
		"who listens is deaf":             {said{"r1": silent, "s1": silent, "s2": silent}, false},
		"nobody ever heard":               {said{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			o, now := New(start, silence), start.Add(time.Minute)
			o.Allocate("web", allocated())
			for name, m := range test.said {
				m.Name = name
				o.Hear(now, []control.Member{m})
			}
			if len(test.said) > 1 && o.Of(now, "web") {
				t.Error("refused before the silence is over")
			}
			if got := o.Of(now.Add(silence), "web"); got != test.refused {
				t.Errorf("refused %t, want %t", got, test.refused)
			}
			if o.Of(now.Add(silence), "api") {
				t.Error("a service without an allocation is refused")
			}
			o.Allocate("web", alloc.Allocation{})
			if o.Of(now.Add(silence), "web") {
				t.Error("refused after its allocation was deleted")
			}
		})
	}
}

func TestListensFirst(t *testing.T) {
	o := New(start, silence)
	o.Allocate("web", allocated())
	o.Hear(start, []control.Member{{Name: "r1", Health: control.Available}})
	if due := o.Next(start); !due.Equal(start.Add(ListenFor)) {
		t.Errorf("next at %v", due)
	}
	if o.Of(start.Add(ListenFor-1), "web") || !o.Of(start.Add(ListenFor), "web") {
		t.Error("want an outage once it has listened for long enough")
	}
}
