package agent

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
)

// TestClosingsSayWhy: the counters go by it.
func TestClosingsSayWhy(t *testing.T) {
	whys := func(actions []Action) (all []string) {
		for _, a := range actions {
			if d, is := a.(Close); is {
				all = append(all, d.Why)
			}
		}
		return all
	}
	a := followed(allocation(1, s2, s2), allocation(2, s2, s3))
	for why, s := range map[string]service.Service{"moved": web, "deadline": moving(), "break": breaking()} {
		c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
		c.SetServices(start, []service.Service{s})
		c.Committed(start, "web", a[0])
		c.Committed(start, "web", a[1])
		if got := whys(c.Tick(start.Add(2 * time.Minute))); !slices.Contains(got, why) {
			t.Errorf("%s: %q", why, got)
		}
	}
	c := listening(t, withStandbys(allocation(1, s1, s3), s3, s2))
	turns(c, start, "s3", control.Silent, "")
	turns(c, start.Add(time.Second), "s3", control.Available, "")
	if got := whys(c.Tick(start.Add(time.Second + settle))); !slices.Equal(got, []string{"back"}) {
		t.Errorf("back: %q", got)
	}
}
