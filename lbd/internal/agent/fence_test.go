package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
)

// owning is s2 with the even users, s3 of the same link stands by for them.
func owning(t *testing.T) *Core {
	return listening(t, withStandbys(allocation(1, s2, s1), s3, s3))
}

// wantOut checks that an absent server takes nobody and says so.
func wantOut(t *testing.T, actions []Action, why string) {
	t.Helper()
	a := applied(t, actions)
	if !a.Accept[0].Accept.Empty() {
		t.Errorf("takes %v, want nobody", a.Accept[0].Accept)
	}
	if a.Status == nil || a.Status.OK || !strings.Contains(a.Status.Why, why) {
		t.Errorf("says %+v, want %q", a.Status, why)
	}
}

// wantBack checks that a server comes back: first it says so, then it takes its users.
func wantBack(t *testing.T, c *Core, now time.Time, actions []Action) {
	t.Helper()
	a := applied(t, actions)
	if a.Status == nil || !a.Status.OK || !a.Accept[0].Accept.Empty() {
		t.Fatalf("%+v, want to say that it is back and to take nobody yet", a)
	}
	if early := c.Tick(now.Add(settle - time.Millisecond)); len(early) != 0 {
		t.Fatalf("before settle: %+v", early)
	}
	if due := c.Next(); !due.Equal(now.Add(settle)) {
		t.Fatalf("next at %v, want %v", due, now.Add(settle))
	}
	if a := applied(t, c.Tick(now.Add(settle))); !a.Revive || !a.Accept[0].Accept.Contains(even) {
		t.Errorf("after settle: %+v, want to revive and to take even users", a)
	}
}

func TestFencedServerStaysOutLongerEachTime(t *testing.T) {
	c, now := owning(t), start
	for _, out := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second} {
		wantOut(t, c.Lapsed(now), control.Fenced)
		if again := c.Lapsed(now.Add(time.Millisecond)); len(again) != 0 {
			t.Errorf("told again: %+v", again)
		}
		if early := c.Tick(now.Add(out - time.Millisecond)); len(early) != 0 {
			t.Fatalf("%v: too early: %+v", out, early)
		}
		now = now.Add(out)
		wantBack(t, c, now, c.Tick(now))
		now = now.Add(time.Second)
	}
}

func TestFencedServerAnswersNoAnnouncement(t *testing.T) {
	c := owning(t)
	c.Lapsed(start)
	next := withStandbys(allocation(2, s2, s2), s3, s3)
	if out := c.Announced(start, "web", next, allocation(1, s2, s1)); len(out) != 0 {
		t.Errorf("answers %+v", out)
	}
	for _, a := range c.Committed(start, "web", next) {
		if a, ok := a.(Apply); ok && !a.Accept[0].Accept.Empty() {
			t.Errorf("takes %v while it is out", a.Accept[0].Accept)
		}
	}
	if due := start.Add(5 * time.Second); len(c.Tick(due)) == 0 {
		t.Error("does not come back")
	}
}

// TestNobodyStaysOutAlone: what is served is not dropped because others are gone.
func TestNobodyStaysOutAlone(t *testing.T) {
	c := owning(t)
	for _, name := range []string{"s1", "s3"} {
		turns(c, start, name, control.Silent, "")
	}
	c.Lapsed(start)
	now := start.Add(fenceAtLeast)
	if due := c.Next(); !due.Equal(now) {
		t.Errorf("next at %v, want %v", due, now)
	}
	wantBack(t, c, now, c.Tick(now))
	turns(c, now.Add(time.Second), "s3", control.Available, "")
	if takes(c) == "" {
		t.Error("goes out when others come back")
	}
}

func TestOwnerYieldsToItsStandbyOfTheSameLink(t *testing.T) {
	far := withStandbys(allocation(1, s2, s1), s1, s3)
	later := withStandbys(allocation(1, s2, s1), s3, s3)
	later.Epoch.Term = 2
	for name, test := range map[string]struct {
		by, owner string
		core      *Core
		yields    bool
	}{
		"of a term that is over": {"s3", "s2", listening(t, later), false},
		"its standby":            {"s3", "s2", owning(t), true},
		"another's":              {"s3", "s1", owning(t), false},
		"not its standby":        {"s1", "s2", owning(t), false},
		"one on another link":    {"s1", "s2", listening(t, far), false},
		"a name of no server":    {"s9", "s2", owning(t), false},
		"without a channel":      {"s3", "s2", newS2(t), false},
		"before any epoch":       {"s3", "s2", NewCore("s2", nil, netip.Prefix{}, settle), false},
		"a standby out itself":   {"s3", "s2", unwellStandby(t), false},
	} {
		t.Run(name, func(t *testing.T) {
			actions := test.core.TakenOver(start, announce.Takeover{Service: "web", Epoch: allocation(1, s2, s1).Epoch, From: test.owner, By: test.by})
			if !test.yields {
				if len(actions) != 0 {
					t.Errorf("%+v", actions)
				}
				return
			}
			wantOut(t, actions, "s3 has taken over")
		})
	}
}

func unwellStandby(t *testing.T) *Core {
	c := owning(t)
	turns(c, start, "s3", control.Unwell, control.Deaf)
	return c
}

func TestDeadApplicationCeasesThenTells(t *testing.T) {
	c := owning(t)
	wantOut(t, c.SetHealthy(start, false), "application")
	now := start.Add(time.Minute)
	wantBack(t, c, now, c.SetHealthy(now, true))
}

func TestBackAndOutAgainBeforeItTakes(t *testing.T) {
	c := owning(t)
	c.SetHealthy(start, false)
	c.SetHealthy(start.Add(time.Second), true)
	wantOut(t, c.SetHealthy(start.Add(time.Second+settle/2), false), "application")
	if late := c.Tick(start.Add(time.Minute)); len(late) != 0 {
		t.Errorf("%+v, though the application is dead", late)
	}
}

func TestStartAfterADeathWaitsForTheApplication(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.Channel(silence, false)
	c.Restore(start, "web", withStandbys(allocation(1, s2, s1), s3, s3), nil)
	wantOut(t, c.SetServices(start, []service.Service{web}), "starting")
	wantBack(t, c, start, c.SetHealthy(start, true))
}

func TestPlannedRestartGoesOn(t *testing.T) {
	c := NewCore("s2", []string{"web"}, netip.MustParsePrefix("10.3.2.0/24"), settle)
	c.Channel(silence, true)
	c.Restore(start, "web", withStandbys(allocation(1, s2, s1), s3, s3), nil)
	a := applied(t, c.SetServices(start, []service.Service{web}))
	if !a.Accept[0].Accept.Contains(even) || !a.Status.OK {
		t.Errorf("%+v, want what the data plane took all the time", a)
	}
	if out := c.SetHealthy(start, true); len(out) != 0 {
		t.Errorf("the first verdict changes %+v", out)
	}
	wantOut(t, c.SetHealthy(start, false), "application")
}

func TestLeavingServerCeasesThenTells(t *testing.T) {
	wantOut(t, owning(t).Leave(start), control.Leaving)
}
