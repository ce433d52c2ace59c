package routing

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// When what failed is tried again, and what waits for neighbors' turns goes on.
const (
	applyAgain = time.Second
	waitsAgain = 100 * time.Millisecond
)

// missEvery is how often it is looked whether the speaker is still the one that it was.
const missEvery = 250 * time.Millisecond

// GoBGP counts all routes of neighbors whenever it is asked for these, and does nothing else meanwhile: 40 ms for 500,000. So it rests for so many times as long as it took before it
// is asked again: always, and where somebody waits for the answer.
const (
	restAlways  = 20
	restWaiting = 4
)

func rest(begun time.Time, times int, least time.Duration) time.Duration {
	return max(least, time.Duration(times)*time.Since(begun))
}

// Neighbors have been told when the speaker has sent them nothing for quietFor, and their hosts have acknowledged all that it had sent. The speaker's API has nothing
// better: GoBGP 3.37 fills in neither queues nor out_q of a neighbor, and its adj-out tables are made of the table of routes when they are asked for, whatever was sent. What
// waits to be sent goes at once, unless TCP takes no more, and then something is under way: quietFor is for a speaker that is held up.
const (
	lookEvery = 50 * time.Millisecond
	quietFor  = 200 * time.Millisecond
)

// applier has the speaker have the latest that is wanted, in a goroutine of its own, and says when its neighbors have been told.
type applier struct {
	speaker  bgp.Speaker
	underway func(bgp.Desired) (bool, error)
	unseen   bool // it has failed, and that was logged
	log      *slog.Logger
	vips     []netip.Prefix
	wanted   chan order
	results  chan result
}

type order struct {
	version, paths uint64
	desired        bgp.Desired
}

type result struct {
	version, paths uint64
	told           bool // neighbors have it, too
	met, goesOn    bool // before all others: the speaker has announced VIPs all the time, or not
	err            error
}

func newApplier(o Options) applier {
	return applier{speaker: o.Speaker, underway: o.Underway, log: o.Log, vips: o.VIPs, wanted: make(chan order, 1), results: make(chan result)}
}

// want replaces what was wanted and has not been begun with.
func (a *applier) want(o order) {
	select {
	case <-a.wanted:
	default:
	}
	a.wanted <- o // the loop alone puts something in
}

func (a *applier) run(ctx context.Context) {
	if !a.say(ctx, result{met: true, goesOn: a.announces(ctx)}) {
		return
	}
	var o order
	look := time.NewTimer(missEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case o = <-a.wanted:
		case <-look.C:
			begun := time.Now()
			has := o.version == 0 || o.desired.Silent || a.hasNeighbors(ctx, o.desired)
			look.Reset(rest(begun, restAlways, missEvery))
			if has {
				continue
			}
		}
		for again := true; again; {
			o, again = a.apply(ctx, o)
		}
	}
}

// hasNeighbors says whether the speaker is the one that was told of its neighbors: another one, in its place, knows none.
func (a *applier) hasNeighbors(ctx context.Context, d bgp.Desired) bool {
	all, err := a.speaker.Neighbors(ctx)
	known := map[netip.Addr]bool{}
	for _, s := range all {
		known[s.Address] = true
	}
	return err == nil && !slices.ContainsFunc(d.Neighbors, func(n bgp.Neighbor) bool { return !known[n.Address] })
}

// apply brings an order to the speaker and its neighbors; it returns the one to go on with.
func (a *applier) apply(ctx context.Context, o order) (order, bool) {
	err := a.speaker.Apply(ctx, o.desired)
	again := applyAgain
	waits := errors.Is(err, bgp.ErrWaits)
	if waits {
		err, again = nil, waitsAgain
	}
	if ctx.Err() != nil || !a.say(ctx, result{version: o.version, paths: o.paths, err: err}) {
		return o, false
	}
	if err != nil || waits {
		select {
		case <-ctx.Done():
			return o, false
		case o = <-a.wanted:
		case <-time.After(again):
		}
		return o, true
	}
	return a.waitTold(ctx, o)
}

// announces says whether the speaker, which an earlier run has left, announces a VIP as it is to be, and not as one that comes or goes.
func (a *applier) announces(ctx context.Context) (is bool) {
	for _, f := range []bgp.Family{bgp.IPv4Unicast, bgp.IPv6Unicast} {
		_ = a.speaker.Routes(ctx, bgp.Query{Family: f}, func(r bgp.Route) bool { // of a speaker that has just been started there is nothing to be said
			p := r.Unicast
			isOurs := p != nil && !p.From.IsValid() && slices.ContainsFunc(a.vips, func(v netip.Prefix) bool { return v.Contains(p.Prefix.Addr()) })
			is = isOurs && p.Prepend == 0 && p.MED == nil && len(p.Communities) == 0
			return !is
		})
		if is {
			return true
		}
	}
	return false
}

func (a *applier) say(ctx context.Context, r result) bool {
	select {
	case a.results <- r:
		return true
	case <-ctx.Done():
		return false
	}
}

// waitTold waits until the speaker has sent nothing to anybody for a while, and nothing is under way. Where it has neighbors, and no session with any, nobody is told.
func (a *applier) waitTold(ctx context.Context, o order) (order, bool) {
	look := time.NewTimer(lookEvery)
	defer look.Stop()
	sent, since := ^uint64(0), time.Now()
	for {
		select {
		case <-ctx.Done():
			return o, false
		case next := <-a.wanted:
			return next, true
		case <-look.C:
		}
		begun := time.Now()
		now, ok := a.sent(ctx)
		look.Reset(rest(begun, restWaiting, lookEvery))
		switch {
		case !ok || now != sent || time.Since(since) >= quietFor && a.isUnderway(o.desired):
			sent, since = now, time.Now()
		case time.Since(since) >= quietFor:
			a.say(ctx, result{version: o.version, paths: o.paths, told: true})
			return o, false
		}
	}
}

// sent is how many updates the sessions that are there have sent; false: nobody can be told.
func (a *applier) sent(ctx context.Context) (n uint64, ok bool) {
	all, err := a.speaker.Neighbors(ctx)
	sessions := uint64(0)
	for _, s := range all {
		if s.State == bgp.Established {
			sessions++
			n += s.Sent.Updates
		}
	}
	return sessions<<48 | n, err == nil && (sessions > 0 || len(all) == 0) // one that has come has yet to be told
}

// isUnderway: where that cannot be seen silence counts alone.
func (a *applier) isUnderway(d bgp.Desired) bool {
	if a.underway == nil {
		return false
	}
	is, err := a.underway(d)
	if err != nil && !a.unseen {
		a.log.Warn("BGP: cannot see what neighbors have yet to acknowledge: they count as told when the speaker is silent", "err", err)
	}
	a.unseen = err != nil
	return is && err == nil
}
