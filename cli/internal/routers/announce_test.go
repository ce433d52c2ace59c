package routers

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// world is routers by name: what each says of what it announces, or why not. Those in late are not in the first answer to All.
type world struct {
	announced map[string]func() (*tdpdv1.Announced, error)
	late      map[string]bool
	failed    error // All's, beside what it has
	asked     int
}

func (*world) Close() {}

func (w *world) All(context.Context) (all []*tdpdv1.Answer, err error) {
	w.asked++
	for name := range w.announced {
		if w.asked > 1 || !w.late[name] {
			all = append(all, &tdpdv1.Answer{Router: name})
		}
	}
	if len(all) == 0 {
		return nil, ErrNone
	}
	return all, w.failed
}

func (w *world) One(_ context.Context, router string, _ *tdpdv1.Request) (*tdpdv1.Answer, error) {
	a, err := w.announced[router]()
	if err != nil || a == nil {
		return &tdpdv1.Answer{Router: router}, err
	}
	return &tdpdv1.Answer{Router: router, About: &tdpdv1.Answer_Announce{Announce: a}}, nil
}

func says(a *tdpdv1.Announced, err error) func() (*tdpdv1.Announced, error) {
	return func() (*tdpdv1.Announced, error) { return a, err }
}

// TestHostsOf: a server has no host only if all that there are have said so, when asked again.
func TestHostsOf(t *testing.T) {
	t.Parallel()
	host := says(&tdpdv1.Announced{Server: true, Hosts: []string{"10.0.2.1"}}, nil)
	broken := says(nil, errors.New("it is stuck"))
	for name, c := range map[string]struct {
		w    world
		host string
		err  string
	}{
		"none on the bus":    {},
		"there":              {w: world{announced: map[string]func() (*tdpdv1.Announced, error){"h2": host}}, host: "h2"},
		"slow":               {w: world{announced: map[string]func() (*tdpdv1.Announced, error){"h2": host, "r1": says(&tdpdv1.Announced{}, nil)}, late: map[string]bool{"h2": true}}, host: "h2"},
		"slow and alone":     {w: world{announced: map[string]func() (*tdpdv1.Announced, error){"h2": host}, late: map[string]bool{"h2": true}}, host: "h2"},
		"others are stuck":   {w: world{announced: map[string]func() (*tdpdv1.Announced, error){"h2": host, "r1": broken}}, host: "h2"},
		"stuck":              {w: world{announced: map[string]func() (*tdpdv1.Announced, error){"h2": broken}}, err: "router h2 does not say whether it is on a server's host: it is stuck"},
		"an answer is lost":  {w: world{announced: map[string]func() (*tdpdv1.Announced, error){"r1": says(&tdpdv1.Announced{}, nil)}, failed: errors.New("r3 is stuck")}, err: "r3 is stuck"},
		"they have no BGP":   {w: world{announced: map[string]func() (*tdpdv1.Announced, error){"r1": says(nil, unanswered{&tdpdv1.Unanswered{Why: tdpdv1.Why_WHY_NO_BGP}}), "r2": says(nil, nil)}}},
		"it is no server's":  {w: world{announced: map[string]func() (*tdpdv1.Announced, error){"r1": says(&tdpdv1.Announced{Hosts: []string{"10.0.2.1"}}, nil)}}},
		"another one's host": {w: world{announced: map[string]func() (*tdpdv1.Announced, error){"h3": says(&tdpdv1.Announced{Server: true, Hosts: []string{"10.0.3.1"}}, nil)}}},
	} {
		t.Run(name, func(t *testing.T) {
			hosts, err := HostsOf(t.Context(), &c.w, []string{"10.0.2.1"})
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v", err)
			}
			if c.host == "" && len(hosts) > 0 || c.host != "" && (len(hosts) != 1 || hosts[0].Router != c.host || hosts[0].Server != "10.0.2.1") {
				t.Errorf("%+v", hosts)
			}
			if c.host == "" && c.w.asked < 2 {
				t.Error("it was not asked again")
			}
		})
	}
}

// TestFollow: neighbors that are told when patience is all but over have all of their time to converge; who does not get on is given up.
func TestFollow(t *testing.T) {
	t.Parallel()
	const patience, settle, within = 30 * time.Second, 20 * time.Second, 5 * time.Second
	follow := func(t *testing.T, told time.Duration) (*tdpdv1.Announced, time.Duration, error) {
		begun := time.Now()
		now := func() (*tdpdv1.Announced, error) {
			since := time.Since(begun)
			switch {
			case since < told:
				return &tdpdv1.Announced{Phase: "leaving", Waits: "neighbors to be told", LeftMs: max(patience-since, 0).Milliseconds()}, nil
			case since < told+settle:
				return &tdpdv1.Announced{Phase: "leaving", Waits: "neighbors to converge", LeftMs: (told + settle - since).Milliseconds()}, nil
			}
			return &tdpdv1.Announced{Phase: "out", Waits: "nothing", LeftMs: -1}, nil
		}
		first, _ := now()
		a, err := Follow(t.Context(), &world{announced: map[string]func() (*tdpdv1.Announced, error){"r1": now}}, "r1", first, "out", within, func(string) {})
		return a, time.Since(begun), err
	}
	synctest.Test(t, func(t *testing.T) {
		if a, took, err := follow(t, patience-time.Second); err != nil || a.GetPhase() != "out" {
			t.Errorf("%v, %v after %v", a, err, took)
		}
		_, took, err := follow(t, time.Hour)
		if err == nil || !strings.Contains(err.Error(), "waits for neighbors to be told: not out yet") || took > patience+within+time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}
