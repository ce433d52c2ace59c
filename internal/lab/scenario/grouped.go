package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/alloc"
)

// groups of users move apart: those whose addresses end in the same two bits.
const groups = 4

// turnEvery is the time between two moves of many users.
const turnEvery = 900 * time.Millisecond

// grouped is a stage whose users go from server to server in groups.
type grouped struct {
	stage
	says      string      // strategies of the service
	first     [groups]int // of each group of users: the server in g.servers that is to have it
	processes []string    // of a server, in the order in which they start
}

// settle gives each group its first server.
func (g *grouped) settle(turn int) {
	for i := range g.first {
		g.first[i] = (i + turn) % len(g.servers)
	}
}

// apply tells what the service is to be: the topology's, with the strategy and the groups.
func (g *grouped) apply(ctx context.Context) error {
	base, err := os.ReadFile(filepath.Join(g.lab.Dir("ctl"), "services.yaml"))
	if err != nil {
		return err
	}
	text := strings.TrimSpace(string(base)) + "\nhandover: " + g.says + "\nprefixes:\n"
	for i := range g.first {
		text += fmt.Sprintf("  - {prefix: 0.0.0.%d/0.0.0.%d, servers: [%s]}\n", i, groups-1, strings.Join(g.turn(i), ", "))
	}
	file := filepath.Join(g.lab.Dir("ctl"), "moved.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	return g.cli(ctx, "service", "apply", "-f", file)
}

// turn is the order in which servers are to have a group.
func (g *grouped) turn(group int) []string {
	return slices.Concat(g.servers[g.first[group]:], g.servers[:g.first[group]])
}

func (g *grouped) next(group int) { g.first[group] = (g.first[group] + 1) % len(g.servers) }

// move tells of the groups' new servers and waits until they have them.
func (g *grouped) move(ctx context.Context) error {
	if err := g.apply(ctx); err != nil {
		return err
	}
	_, err := g.awaitGroups(ctx)
	return err
}

// awaitGroups waits until each group is where it is to be, at the first server of its turn that is not away, and who is away has nobody at all: a server
// that was killed, and has given its groups away, is yet to be found.
func (g *grouped) awaitGroups(ctx context.Context, away ...string) (time.Time, error) {
	return g.web.awaitAllocation(ctx, "each group has its server", func(a alloc.Allocation) bool {
		if slices.ContainsFunc(away, a.Owns) {
			return false
		}
		for _, user := range g.users {
			in := g.turn(int(user.As4()[3]) % groups)
			i := slices.IndexFunc(in, func(s string) bool { return !slices.Contains(away, s) })
			why, err := a.Why(user)
			if err != nil || why.Owner != in[i] {
				return false
			}
		}
		return true
	})
}

// empty drains a server, and has its users come back.
func (g *grouped) empty(ctx context.Context) error {
	const name = "s1"
	if err := g.cli(ctx, "server", "drain", g.member(name)); err != nil {
		return err
	}
	if _, err := g.awaitGroups(ctx, name); err != nil {
		return err
	}
	if err := g.watchUntil(ctx, time.Now().Add(turnEvery)); err != nil {
		return err
	}
	if err := g.cli(ctx, "server", "undrain", g.member(name)); err != nil {
		return err
	}
	_, err := g.awaitGroups(ctx)
	return err
}

// killHandingOver takes the victim's power away while users go from it, or to it, and has it come back.
func (g *grouped) killHandingOver(ctx context.Context, victim string, gives bool) error {
	group := slices.IndexFunc(g.first[:], func(first int) bool { return (g.servers[first] == victim) == gives })
	if group < 0 {
		return fmt.Errorf("no group goes from %s, or to it", victim)
	}
	before := g.web.epoch()
	g.next(group)
	for !gives && g.servers[g.first[group]] != victim {
		g.next(group)
	}
	if err := g.apply(ctx); err != nil {
		return err
	}
	if err := g.web.awaitEpoch(ctx, before); err != nil {
		return err
	}
	if err := g.kill(victim); err != nil {
		return err
	}
	found, err := g.awaitGroups(ctx, victim)
	if err != nil {
		return err
	}
	g.isFound(found)
	if err := g.revive(ctx, victim, g.processes...); err != nil {
		return err
	}
	if _, err := g.web.await(ctx, "all servers serve", g.everybody); err != nil { // perhaps no group is the victim's now
		return err
	}
	if _, err := g.awaitGroups(ctx); err != nil {
		return err
	}
	g.isBack()
	return nil
}
