package routers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// lookEvery is how often a router is asked how far it is.
const lookEvery = 200 * time.Millisecond

// Announce asks a router what it announces by BGP, which the request may change first.
func Announce(ctx context.Context, w Way, router string, r *tdpdv1.AnnounceRequest) (*tdpdv1.Announced, error) {
	answer, err := w.One(ctx, router, &tdpdv1.Request{About: &tdpdv1.Request_Announce{Announce: r}})
	if err == nil && answer.GetAnnounce() == nil {
		err = fmt.Errorf("router %s does not say what it announces: is it of an older release?", router)
	}
	return answer.GetAnnounce(), err
}

// Follow asks until the router is in a phase, from what it has said first, and tells of each phase before and of what it waits for. It gives up when one
// takes longer by within than the router says that it does at most, with how far it has come.
func Follow(ctx context.Context, w Way, router string, a *tdpdv1.Announced, until string, within time.Duration, tell func(string)) (*tdpdv1.Announced, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	phase, told, end := "", "", time.Time{}
	for a.GetPhase() != until {
		if a.GetPhase() != phase {
			phase, end = a.GetPhase(), time.Now().Add(within+time.Duration(max(a.GetLeftMs(), 0))*time.Millisecond)
		}
		if now := fmt.Sprintf("%s: %s, waits for %s", router, phase, a.GetWaits()); now != told {
			tell(now)
			told = now
		}
		select {
		case <-ctx.Done():
			return a, ctx.Err()
		case <-tick.C:
		}
		next, err := Announce(ctx, w, router, &tdpdv1.AnnounceRequest{})
		if err != nil {
			return a, err
		}
		if a = next; a.GetPhase() == phase && time.Now().After(end) {
			return a, fmt.Errorf("router %s is %s and waits for %s: not %s yet; a longer --timeout waits longer", router, phase, a.GetWaits(), until)
		}
	}
	return a, nil
}

// HostOf is the router on a server's own host, which announces its route; "": there is none. Routers that do not speak BGP have none.
func HostOf(ctx context.Context, w Way, server string) (router string, a *tdpdv1.Announced, err error) {
	all, err := w.All(ctx)
	if errors.Is(err, ErrNone) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	for _, one := range all {
		a, err := Announce(ctx, w, one.GetRouter(), &tdpdv1.AnnounceRequest{})
		if ctx.Err() != nil {
			return "", nil, ctx.Err()
		}
		if err == nil && a.GetServer() && slices.Contains(a.GetHosts(), server) {
			return one.GetRouter(), a, nil
		}
	}
	return "", nil, nil
}
