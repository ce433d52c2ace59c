package leader_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
)

// TestLoadOnTheChannelMovesUsers closes the loop over the control channel: agents report, the leader moves, and no user is served by two, nor
// by nobody for longer than a move on one link takes.
func TestLoadOnTheChannelMovesUsers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, hubMedium{control.NewHub(netHeartbeat, netSilence)}, "policy: load")
		n.director("d1")
		names := []string{"s1", "s2", "s3", "s4"}
		for _, name := range names {
			n.server(name, false)
		}
		n.wait(5 * time.Second)
		n.wantServed("at first", names...)
		n.forget()
		users := func() map[string]int {
			count := map[string]int{}
			for i := range netUsers {
				for _, name := range n.servedBy(userOf(i)) {
					count[name]++
				}
			}
			return count
		}
		for range 120 {
			for name, count := range users() {
				load := 0.1 * float64(count)
				if name == "s1" {
					load *= 2 // half as strong
				}
				n.servers[name].member.SetStatus(control.Status{OK: true, Loads: map[string]alloc.Load{"web": {CPU: load}}})
			}
			n.wait(time.Second)
		}
		n.wantServed("after two minutes", names...)
		if got := users(); got["s1"] != 3 {
			t.Errorf("users are at %v, want 3 of 16 at s1", got)
		}
		moves := n.history()
		if len(moves) != 2 || !strings.HasPrefix(moves[1], "s1 is at 0.80, mean 0.50") {
			t.Errorf("moves %q, want one for load", moves)
		}
		if n.twice > 0 || n.nobody > netSettle {
			t.Errorf("users were served by two for %v, by nobody for %v", n.twice, n.nobody)
		}
		n.end()
	})
}
