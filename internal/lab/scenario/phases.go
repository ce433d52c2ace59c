package scenario

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/lab/intruder"
)

// The phases' names, as the report has them.
const (
	phaseEqual     = "equal"
	phaseWeights   = "weights changed"
	phaseDrained   = "one server drained"
	phaseKilled    = "one server killed"
	phaseIntruders = "intruders"
	phaseRouters   = "igmpd killed and restarted"
	phaseBack      = "back"
)

func (m *multicast) plan() []phase {
	all := []phase{
		{phaseEqual, 3, m.equal, true},
		{phaseWeights, 3, m.changeWeights, false},
		{phaseDrained, 3, m.drain, false},
		{phaseKilled, 5, m.killServer, false},
		{phaseIntruders, 2, m.intrude, false},
		{phaseRouters, 3, m.restartRouters, true},
		{phaseBack, 4, m.back, false},
	}
	if m.o.Static {
		all = slices.DeleteFunc(all, func(p phase) bool { return !p.static })
	}
	return all
}

// phases runs all phases.
func (m *multicast) phases(ctx context.Context) error { return m.runPhases(ctx, m.plan(), m.askSecond) }

// equal asks by UDP and looks at the second service's joins; nothing is changed.
func (m *multicast) equal(ctx context.Context) error {
	if err := m.udp(ctx); err != nil || m.o.Static {
		return err
	}
	return m.checkSecondJoins(ctx)
}

func (m *multicast) changeWeights(ctx context.Context) error {
	if err := m.cli(ctx, "server", "weight", m.member("s1"), "2"); err != nil {
		return err
	}
	_, err := m.web.await(ctx, "s1 has half", func(c map[string]int) bool { return c["s1"] == c["s2"]+c["s3"] })
	return err
}

func (m *multicast) drain(ctx context.Context) error { return m.drainServer(ctx, "s1") }

// foundWithin is how soon a dead server's users have to be the others', with nothing but its registration to miss.
const foundWithin = 3 * time.Second

func (m *multicast) killServer(ctx context.Context) error {
	const victim = "s2"
	at, found, err := m.stage.killServer(ctx, victim)
	if err != nil {
		return err
	}
	m.check("a killed server is found", found.Sub(at) <= foundWithin, "%s: %v after it was killed, %v are allowed",
		victim, found.Sub(at).Round(time.Millisecond), foundWithin)
	return nil
}

// intrude lets each kind of intruder try once and looks whether the router beside it refused for the right reason.
func (m *multicast) intrude(ctx context.Context) error {
	key, err := m.groupKey("s3", m.vars["group"])
	if err != nil {
		return err
	}
	packet := filepath.Join(m.lab.Dir("x2"), "captured")
	common := []string{"manycast", "lab", "intruder", "--interface", "eth0", "--group", m.vars["group"], "--key", key, "--packet", packet}
	topology := m.lab.Topology()
	for _, k := range intruder.Kinds {
		node, as := "x2", "x2"
		switch k.Kind {
		case intruder.Replay:
			argv := append(slices.Clone(common), "--kind", "capture")
			if out, err := m.lab.Command(ctx, "s3", argv...).CombinedOutput(); err != nil {
				return fmt.Errorf("capture a join: %w: %s", err, out)
			}
		case intruder.WrongLink:
			node, as = "x1", "s3"
		}
		requester, err := topology.Address(as, "eth0")
		if err != nil {
			return err
		}
		before, err := m.refused(ctx, "r2", k.Reason)
		if err != nil {
			return err
		}
		argv := append(slices.Clone(common), "--kind", string(k.Kind), "--requester", requester.String())
		if out, err := m.lab.Command(ctx, node, argv...).CombinedOutput(); err != nil {
			return fmt.Errorf("intruder %s: %w: %s", k.Kind, err, out)
		}
		if err := m.awaitRefusal(ctx, k.Kind, k.Reason, before); err != nil {
			return err
		}
	}
	return nil
}

func (m *multicast) awaitRefusal(ctx context.Context, kind intruder.Kind, reason string, before uint64) error {
	for deadline := time.Now().Add(time.Second); ; {
		after, err := m.refused(ctx, "r2", reason)
		if err != nil {
			return err
		}
		if after > before || time.Now().After(deadline) {
			m.check("intruder "+string(kind), after > before, "r2 counts %d refused as %s, %d before", after, reason, before)
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// groupKey is the file of a group's private key that a server was handed.
func (m *multicast) groupKey(server, group string) (string, error) {
	files, err := filepath.Glob(filepath.Join(m.lab.Dir(server), "groups", group+"-*.key"))
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fmt.Errorf("%s was handed no key of group %s", server, group)
	}
	return files[0], nil
}

func (m *multicast) refused(ctx context.Context, router, reason string) (uint64, error) {
	c, err := ask(ctx, m.lab.Dir(router))
	return c.Refused[reason], err
}

// restartRouters kills igmpd on both routers, lets the users work on without, and starts it again.
func (m *multicast) restartRouters(ctx context.Context) error {
	if err := m.count(ctx); err != nil {
		return err
	}
	for _, r := range m.routers {
		if err := m.lab.Kill(r, "igmpd"); err != nil {
			return err
		}
	}
	m.o.Progress.Note("igmpd is gone from %v", m.routers)
	if err := m.watchUntil(ctx, time.Now().Add(time.Second)); err != nil {
		return err
	}
	for _, r := range m.routers {
		if err := m.lab.Start(ctx, r, "igmpd"); err != nil {
			return err
		}
	}
	return m.count(ctx)
}

// back takes everything to where it began.
func (m *multicast) back(ctx context.Context) error {
	if err := m.revive(ctx, "s2", "app", "names", "agent"); err != nil {
		return err
	}
	for _, args := range [][]string{{"server", "undrain", m.member("s1")}, {"server", "weight", m.member("s1"), "default"}} {
		if err := m.cli(ctx, args...); err != nil {
			return err
		}
	}
	return m.awaitEven(ctx)
}

// count reads the routers' counters; those of an igmpd that is killed would be lost.
func (m *multicast) count(ctx context.Context) error {
	for _, r := range m.routers {
		c, err := ask(ctx, m.lab.Dir(r))
		if err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
		if m.ledgers[r] == nil {
			m.ledgers[r] = &ledger{}
		}
		m.ledgers[r].enter(c)
	}
	return nil
}
