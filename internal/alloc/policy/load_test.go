package policy

import (
	"testing"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
)

// The load of few users goes up and down by chance: that is not followed, what is far off is, and so is what many users do.
func TestFewUsersAreNotFollowed(t *testing.T) {
	servers := []alloc.Server{{Name: "s1", Weight: 1, Alive: true}, {Name: "s2", Weight: 1, Alive: true}}
	rules := Rules{Policy: Load, Slots: suffix8}
	current, _, err := alloc.Next(alloc.Allocation{}, alloc.Want{Epoch: epoch.Epoch{Term: 1, Number: 1}, Slots: suffix8, Servers: servers})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what        string
		one, other  float64
		connections int
		moves       bool
	}{
		{"few, 20 % from the mean", 0.6, 0.4, 200, false},
		{"many, 20 % from the mean", 0.6, 0.4, 20_000, true},
		{"few, 50 % from the mean", 0.75, 0.25, 200, true},
		{"next to none, 50 % from the mean", 0.75, 0.25, 1, true},
		{"unknown, 20 % from the mean", 0.6, 0.4, 0, true},
	} {
		loads := map[string]alloc.Load{
			"s1": {CPU: test.one, Connections: test.connections}, "s2": {CPU: test.other, Connections: test.connections},
		}
		d := Decide(Input{Rules: rules, Servers: servers, Current: current, Loads: loads, Due: true})
		if moves := d.Servers[0].Weight != d.Servers[1].Weight; moves != test.moves {
			t.Errorf("%s: moves %v", test.what, moves)
		}
	}
}
