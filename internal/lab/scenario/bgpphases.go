package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/peercred"
)

// The director that is drained and killed, and whose speaker and tdpd are, and the one that comes later.
const (
	shaken = "d1"
	later  = "d3"
)

// computing is what neighbors may take, beyond the time in which they find the dead director out, to have other ways.
const computing = 250 * time.Millisecond

// steady: neighbors have a way to each director that announces the VIP, and nobody has told them of another one.
func (b *bgp) steady(ctx context.Context) error { return b.awaitWays(ctx) }

func (b *bgp) changeWeights(ctx context.Context) error {
	if err := b.cli(ctx, "server", "weight", b.member("s1"), "2"); err != nil {
		return err
	}
	_, err := b.web.await(ctx, "s1 has half", func(c map[string]int) bool { return c["s1"] == c["s2"]+c["s3"] })
	return err
}

func (b *bgp) drainDirector(ctx context.Context) error {
	if err := b.cli(ctx, "director", "drain", shaken, "--wait", "--timeout", "20s"); err != nil {
		return err
	}
	b.leaves(shaken)
	return b.awaitWays(ctx)
}

func (b *bgp) undrainDirector(ctx context.Context) error {
	if err := b.cli(ctx, "director", "undrain", shaken, "--wait", "--timeout", "20s"); err != nil {
		return err
	}
	b.comes(shaken)
	return b.awaitWays(ctx)
}

func (b *bgp) leaves(director string) {
	b.there = slices.DeleteFunc(b.there, func(d string) bool { return d == director })
}

func (b *bgp) comes(director string) {
	b.there = append(b.there, director)
	slices.Sort(b.there)
}

// killDirector takes a director's power away: its neighbors see no link go, and send on until BFD, or else the hold time, is over.
func (b *bgp) killDirector(ctx context.Context) error {
	hold, byBFD, err := b.silences()
	if err != nil {
		return err
	}
	b.found.HoldMS, b.found.BFDMS = report.Milliseconds(hold), report.Milliseconds(byBFD)
	found, how := hold, "hold time"
	if byBFD > 0 {
		found, how = byBFD, "detection time of BFD"
	}
	at := time.Now()
	over := at.Add(found + computing)
	b.mu.Lock()
	b.tally.Outages = append(b.tally.Outages, report.Outage{At: at, Over: over})
	b.mu.Unlock()
	b.leaves(shaken)
	if err := b.lab.KillNode(shaken); err != nil {
		return err
	}
	if err := b.watchUntil(ctx, over.Add(2*answering)); err != nil {
		return err
	}
	until := time.Now().Add(-answering)
	gap := b.asker.Gap(at, until)
	if gap.Lost > 0 {
		b.found.FailoverMS = report.Milliseconds(gap.Last.Sub(at))
	}
	late := b.starvation.longest(at, until, shaken)
	b.o.Progress.Note("the last question without an answer is of %.0f ms after the power cut, %d of %d were lost", b.found.FailoverMS, gap.Lost, gap.Asked)
	b.check("a dead director's users fail over", gap.Lost > 0 && gap.Last.Sub(at) <= found+computing+late,
		"the last of %d questions without an answer was asked %.0f ms after the power cut; %s %v, and %v for routes to be computed; kept from running %v", gap.Lost, b.found.FailoverMS, how, found, computing, late)
	return b.awaitWays(ctx)
}

func (b *bgp) reviveDirector(ctx context.Context) error {
	if err := b.revive(ctx, shaken, b.daemons()...); err != nil {
		return err
	}
	b.comes(shaken)
	return b.awaitIn(ctx, b.there...)
}

// daemons are those of the directors with a speaker of tdpd's own.
func (b *bgp) daemons() []string {
	if b.vars["bfd"] == "true" {
		return []string{"zebra", "bfdd", "tdpd", "director"}
	}
	return []string{"tdpd", "director"}
}

// addDirector has neighbors, which know its address, hear of one more.
func (b *bgp) addDirector(ctx context.Context) error {
	for _, p := range b.daemons() {
		if err := b.lab.Start(ctx, later, p); err != nil {
			return err
		}
	}
	b.comes(later)
	return b.awaitIn(ctx, b.there...)
}

// awaitIn waits until directors announce the VIP as it is to be, and neighbors' kernels have the ways to all that are to.
func (b *bgp) awaitIn(ctx context.Context, directors ...string) error {
	err := b.poll(ctx, fmt.Sprintf("%v announce the VIP", directors), func() (bool, error) {
		for _, d := range directors {
			var rows []struct {
				Phase     string `json:"phase"`
				Announced bool   `json:"announced"`
			}
			if err := b.tell(ctx, &rows, "director", "show", d); err != nil {
				b.o.Progress.Note("%s does not answer: %v", d, err)
				return false, ctx.Err()
			}
			if len(rows) != 1 || rows[0].Phase != "in" || !rows[0].Announced {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	return b.awaitWays(ctx)
}

// awaitWays waits until neighbors' kernels have the ways to all directors that are to announce the VIP, and no others.
func (b *bgp) awaitWays(ctx context.Context) error {
	var want []netip.Addr
	for _, d := range b.there {
		p, err := b.lab.Topology().Address(d, "ix")
		if err != nil {
			return err
		}
		want = append(want, p.Addr())
	}
	return b.poll(ctx, fmt.Sprintf("neighbors have ways to %v", b.there), func() (bool, error) {
		for _, r := range b.routes {
			if !slices.Equal(r.Now(), want) {
				return false, nil
			}
		}
		return true, nil
	})
}

// killSpeaker kills the process that speaks BGP alone: tdpd starts another one, and neighbors wait for that.
func (b *bgp) killSpeaker(ctx context.Context) error {
	old, err := speakerOf(b.lab, shaken)
	if err != nil {
		return err
	}
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		return fmt.Errorf("the speaker of %s, process %d: %w", shaken, old, err)
	}
	err = b.poll(ctx, "another speaker of "+shaken, func() (bool, error) {
		now, err := speakerOf(b.lab, shaken)
		return err == nil && now != old, nil
	})
	return errors.Join(err, b.awaitTold(ctx))
}

// awaitTold waits until neighbors have heard from all directors' speakers again what they kept of them.
func (b *bgp) awaitTold(ctx context.Context) error {
	return b.poll(ctx, "neighbors have been told everything again", func() (bool, error) {
		for _, f := range neighbors {
			paths, err := b.paths(ctx, f, "unicast", b.vars["vip"]+"/32")
			if err != nil {
				return false, err
			}
			fresh := 0
			for _, p := range paths {
				if p.Valid && !p.Stale && !slices.Contains(p.communities(), "graceful-shutdown") {
					fresh++
				}
			}
			if fresh < len(b.there) {
				return false, nil
			}
		}
		return true, nil
	})
}

// restartTDP kills tdpd of all directors, lets users work on without, and starts it again: speakers go on meanwhile.
func (b *bgp) restartTDP(ctx context.Context) error {
	for _, d := range b.there {
		if err := b.lab.Kill(d, "tdpd"); err != nil {
			return err
		}
	}
	b.o.Progress.Note("tdpd is gone from %v", b.there)
	if err := b.watchUntil(ctx, time.Now().Add(away)); err != nil {
		return err
	}
	for _, d := range b.there {
		if err := b.lab.Start(ctx, d, "tdpd"); err != nil {
			return err
		}
	}
	if err := b.awaitIn(ctx, b.there...); err != nil {
		return err
	}
	return b.awaitTold(ctx)
}

// speakerOf is the process that speaks BGP for a director's tdpd: the one that has its socket.
func speakerOf(l *lab.Lab, director string) (int, error) {
	pid, err := peercred.Listener(l.Dir(director) + "/tdpd-run/speaker/api.sock")
	if err != nil {
		return 0, fmt.Errorf("the speaker of %s: %w", director, err)
	}
	return pid, nil
}
