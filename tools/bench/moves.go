package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/lab/probe"
)

// The data paths of the routers.
const (
	accelerator = "accelerator"
	kernelTable = "kernel's table"
)

// labResults are the figures of the lab, on one data path of the routers.
func labResults(ctx context.Context, bin, path string) (rows []result, err error) {
	set := map[string]string{"accelerator": fmt.Sprint(path == accelerator)}
	err = withLab(ctx, bin, set, func(w *world) error {
		j, err := w.observe(func() error { return w.move(ctx) })
		if err != nil {
			return err
		}
		lasts := lastPackets(j.links, w.epochs)
		if len(lasts) == 0 {
			return errors.New("no move between links was seen")
		}
		half, most, whole := ms(lasts[len(lasts)/2]), ms(lasts[len(lasts)-1]), w.wholeMove()
		rows = append(rows,
			compare(half, "ms", "the whole move", whole).named("commit to last packet at the old server, p50 of %d, %s", len(lasts), path),
			compare(most, "ms", "the whole move", whole).named("commit to last packet at the old server, most of %d, %s", len(lasts), path),
			compare(float64(j.lost()), "packets", "all sent", float64(j.sent)).named("lost while users move, %s", path),
		)
		j, err = w.observe(func() error { return w.restart(ctx) })
		if err != nil {
			return err
		}
		rows = append(rows, compare(float64(j.lost()), "packets", "all sent", float64(j.sent)).named("lost while igmpd is killed and restarted, %s", path))
		return nil
	})
	return rows, err
}

// wholeMove is the median of what the leader wrote of the last moves, in ms: from the announcement to the last agent's Done.
func (w *world) wholeMove() float64 {
	var all []float64
	for _, m := range w.moves[max(0, len(w.moves)-moves):] {
		all = append(all, m.MS)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// lastPackets are the times from each commit to the last packet of a moved user on the old server's link, sorted. Users whose
// old and new server share a link tell nothing: that link goes on having their packets.
func lastPackets(links map[string][]probe.Arrival, epochs []allocation) (all []time.Duration) {
	for i := 1; i < len(epochs); i++ {
		until := time.Now()
		if i+1 < len(epochs) {
			until = epochs[i+1].at
		}
		if last, ok := lastPacket(links, epochs[i-1], epochs[i], until); ok {
			all = append(all, last)
		}
	}
	slices.Sort(all)
	return all
}

// lastPacket is that of one commit: 0 where none came behind it, false where no user moved from a link.
func lastPacket(links map[string][]probe.Arrival, before, now allocation, until time.Time) (last time.Duration, ok bool) {
	from := map[netip.Addr]string{}
	for _, link := range []string{"s1", "s2"} {
		for _, a := range links[link] {
			if !a.At.After(before.at) || !a.At.Before(until) {
				continue
			}
			if _, known := from[a.User]; !known {
				from[a.User] = movedFrom(a.User, before, now)
			}
			if from[a.User] == link {
				last, ok = max(last, a.At.Sub(now.at)), true
			}
		}
	}
	return last, ok
}

// movedFrom is the link that a user left in an epoch, named by one of its servers; empty: none.
func movedFrom(user netip.Addr, before, now allocation) string {
	was, errWas := before.Why(user)
	is, errIs := now.Why(user)
	if errWas != nil || errIs != nil || linkOf(was.Owner) == linkOf(is.Owner) {
		return ""
	}
	return linkOf(was.Owner)
}

// linkOf names the link of a server by the one whose capture has it.
func linkOf(server string) string { return strings.Replace(server, "s3", "s2", 1) }
