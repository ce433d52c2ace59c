package scenario

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/lab/probe"
	"github.com/manycast/manycast/internal/lab/report"
)

// through: core routers forward labels and believe nobody, upstream routers are as they were before anything of ours, so that all
// packets come to a director.
func (t *tags) through(context.Context) error { return nil }

// tagUpstream has core and upstream routers take part: what they are told moves users' packets off the directors, and no user.
func (t *tags) tagUpstream(ctx context.Context) error {
	for _, r := range cores {
		if err := t.lab.Kill(r, "tdpd-core"); err != nil {
			return err
		}
	}
	for _, r := range slices.Concat(cores, upstreams) {
		if err := t.lab.Start(ctx, r, "tdpd"); err != nil {
			return err
		}
	}
	return t.awaitTagged(ctx, &t.tagged.FirstPacketsViaDirector)
}

// awaitTagged waits until upstream routers tag all there is: a while in which directors have nothing to do. What these had to do before goes
// to byDirectors.
func (t *tags) awaitTagged(ctx context.Context, byDirectors *uint64) error {
	deadline := time.Now().Add(20 * time.Second)
	for since := time.Now(); ; {
		d, err := t.count(ctx)
		if err != nil {
			return err
		}
		*byDirectors += d.byDirectors
		t.tagged.PacketsTagged += d.byUpstreams
		if d.byDirectors > 0 || d.byUpstreams == 0 {
			since = time.Now()
		}
		if time.Since(since) >= 500*time.Millisecond {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("packets still come to directors %v after upstream routers were started", 20*time.Second)
		}
		if err := t.watchUntil(ctx, time.Now().Add(100*time.Millisecond)); err != nil {
			return err
		}
	}
}

func (t *tags) changeWeights(ctx context.Context) error {
	if err := t.cli(ctx, "server", "weight", t.member("s1"), "3"); err != nil {
		return err
	}
	_, err := t.web.await(ctx, "s1 has half", func(c map[string]int) bool { return c["s1"] == c["s2"]+c["s3"]+c["s4"] })
	return err
}

// add takes the drained server back, with as much as the others have.
func (t *tags) add(ctx context.Context) error {
	for _, args := range [][]string{{"server", "weight", t.member("s1"), "default"}, {"server", "undrain", t.member("s1")}} {
		if err := t.cli(ctx, args...); err != nil {
			return err
		}
	}
	return t.awaitEven(ctx)
}

func (t *tags) drain(ctx context.Context) error { return t.drainServer(ctx, "s1") }

func (t *tags) killServer(ctx context.Context) error {
	const victim = "s2"
	at, found, err := t.stage.killServer(ctx, victim)
	if err != nil {
		return err
	}
	heard, sent := t.taps[victim].Between(at.Add(-time.Second), time.Now())
	var ok bool
	if t.detected, ok = report.Detected(heard, sent, at, found); !ok {
		return fmt.Errorf("nothing was sent to %s, or heard of it: there is no telling when it was found out", victim)
	}
	return nil
}

func (t *tags) mend(ctx context.Context) error {
	if err := t.revive(ctx, "s2", "app", "agent"); err != nil {
		return err
	}
	if err := t.awaitEven(ctx); err != nil {
		return err
	}
	t.isBack()
	return nil
}

// away is how long a router or a daemon is away.
const away = 1500 * time.Millisecond

// killDirector takes a director with its router away, perhaps the one that leads.
func (t *tags) killDirector(ctx context.Context) error {
	if err := t.lab.KillNode("d1"); err != nil {
		return err
	}
	if err := t.watchUntil(ctx, time.Now().Add(away)); err != nil {
		return err
	}
	return t.revive(ctx, "d1", "bird", "holder", "igmpd", "tdpd", "director")
}

func (t *tags) restartUpstream(ctx context.Context) error {
	if err := t.lab.KillNode("u1"); err != nil {
		return err
	}
	if err := t.watchUntil(ctx, time.Now().Add(away)); err != nil {
		return err
	}
	return t.revive(ctx, "u1", "bird", "holder", "igmpd", "tdpd", "director")
}

// restartTDP kills tdpd on all routers, lets the users work on without, and starts it again.
func (t *tags) restartTDP(ctx context.Context) error {
	all := slices.Concat(upstreams, cores, directors)
	for _, r := range all {
		if err := t.lab.Kill(r, "tdpd"); err != nil {
			return err
		}
	}
	t.o.Progress.Note("tdpd is gone from %v", all)
	if err := t.watchUntil(ctx, time.Now().Add(away)); err != nil {
		return err
	}
	for _, r := range all {
		if err := t.lab.Start(ctx, r, "tdpd"); err != nil {
			return err
		}
	}
	return nil
}

// changeModes has the service carried out by multicast for a while. Its users stay where they are.
func (t *tags) changeModes(ctx context.Context) error {
	for _, step := range []struct {
		fields string
		then   func(context.Context) error
	}{
		{"mode: tags\ngroup: " + t.vars["group"], t.awaitJoins},
		{"mode: multicast\ngroup: " + t.vars["group"], t.awaitUntagged},
		{"mode: tags\ngroup: " + t.vars["group"], func(ctx context.Context) error { return t.awaitTagged(ctx, &t.tagged.PacketsViaDirector) }},
		{"mode: tags", func(context.Context) error { return nil }},
	} {
		text := fmt.Sprintf("name: %s\nvip: %s\nports: [tcp/80, udp/80]\npolicy: weighted\n%s\n", t.vars["service"], t.vars["vip"], step.fields)
		file := filepath.Join(t.lab.Dir("ctl"), "moved.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		if err := t.cli(ctx, "service", "apply", "-f", file); err != nil {
			return err
		}
		if err := step.then(ctx); err != nil {
			return err
		}
	}
	return nil
}

// awaitJoins waits until upstream routers have the joins of all servers.
func (t *tags) awaitJoins(ctx context.Context) error {
	return t.poll(ctx, "upstream routers have the joins of all servers", func() (bool, error) {
		for _, r := range upstreams {
			c, err := ask(ctx, t.lab.Dir(r))
			if err != nil {
				return false, err
			}
			from := map[string]bool{}
			for _, j := range c.Joins {
				if j.Group == t.vars["group"] {
					from[j.Requester] = true
				}
			}
			if len(from) < len(t.servers) {
				return false, nil
			}
		}
		return true, nil
	})
}

// awaitUntagged waits until routers tag nothing any more, and lets the users work on like that.
func (t *tags) awaitUntagged(ctx context.Context) error {
	err := t.poll(ctx, "routers tag nothing", func() (bool, error) {
		d, err := t.count(ctx)
		t.tagged.PacketsTagged += d.byUpstreams
		t.tagged.PacketsViaDirector += d.byDirectors
		return d.byUpstreams == 0, err
	})
	if err != nil {
		return err
	}
	return t.watchUntil(ctx, time.Now().Add(away))
}

// intrude has the users' side send a packet that is labelled already, with a label of a tree: the border drops and counts it.
func (t *tags) intrude(ctx context.Context) error {
	before, err := t.fast(ctx, "u1")
	if err != nil {
		return err
	}
	if err := t.sendLabelled("a", "u1"); err != nil {
		return err
	}
	deadline := time.Now().Add(2 * time.Second)
	for {
		after, err := t.fast(ctx, "u1")
		if err != nil {
			return err
		}
		if n := after.outsiders - before.outsiders; n > 0 || time.Now().After(deadline) {
			t.check("labelled packets of users are dropped", n == 1, "u1 counts %d of 1", n)
			return nil
		}
		if err := t.watchUntil(ctx, time.Now().Add(50*time.Millisecond)); err != nil {
			return err
		}
	}
}

// sendLabelled sends one from a router to another one beside it, by the interfaces that have each other's names. The label is one that
// routers give out.
func (t *tags) sendLabelled(from, to string) error {
	far, err := t.lab.Namespace(to)
	if err != nil {
		return err
	}
	var link *net.Interface
	if err := far.Do(func() (err error) { link, err = net.InterfaceByName(from); return err }); err != nil {
		return err
	}
	near, err := t.lab.Namespace(from)
	if err != nil {
		return err
	}
	return probe.SendLabelled(near, to, link.HardwareAddr, 16, make([]byte, 64))
}
