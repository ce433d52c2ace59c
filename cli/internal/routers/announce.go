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

// errOlder is the answer of a release that announces nothing.
var errOlder = errors.New("does not say what it announces: is it of an older release?")

// Announce asks a router what it announces by BGP, which the request may change first.
func Announce(ctx context.Context, w Way, router string, r *tdpdv1.AnnounceRequest) (*tdpdv1.Announced, error) {
	answer, err := w.One(ctx, router, &tdpdv1.Request{About: &tdpdv1.Request_Announce{Announce: r}})
	if err == nil && answer.GetAnnounce() == nil {
		err = fmt.Errorf("router %s %w", router, errOlder)
	}
	return answer.GetAnnounce(), err
}

// Follow asks until the router is in a phase, from what it has said first, and tells of each phase before and of what it waits for. It gives up when what
// is waited for takes longer by within than the router says that it does at most, with how far it has come.
func Follow(ctx context.Context, w Way, router string, a *tdpdv1.Announced, until string, within time.Duration, tell func(string)) (*tdpdv1.Announced, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	told, end := "", time.Time{}
	for a.GetPhase() != until {
		now := fmt.Sprintf("%s: %s, waits for %s", router, a.GetPhase(), a.GetWaits())
		if now != told { // what is left of the time is another one, too: neighbors that were told late have all of theirs to converge
			told, end = now, time.Now().Add(within+time.Duration(max(a.GetLeftMs(), 0))*time.Millisecond)
			tell(now)
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
		if next.GetPhase() == a.GetPhase() && next.GetWaits() == a.GetWaits() && time.Now().After(end) {
			return next, fmt.Errorf("router %s is %s and waits for %s: not %s yet; a longer --timeout waits longer", router, next.GetPhase(), next.GetWaits(), until)
		}
		a = next
	}
	return a, nil
}

// Host is the router on a server's own host, which announces its route.
type Host struct {
	Server, Router string
	Announced      *tdpdv1.Announced
}

// asks is how often all routers are asked before a server has no host: one may be about to connect, or slow.
const asks = 2

// HostsOf are the routers on servers' own hosts, in the order of the servers. Those that do not speak BGP are none. Where a server has no host, the error says which
// routers have not answered, one of which may be it; without an error it has none.
func HostsOf(ctx context.Context, w Way, servers []string) (hosts []Host, err error) {
	for range asks {
		if hosts, err = hostsOf(ctx, w, servers); len(hosts) == len(servers) {
			return hosts, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return hosts, err
}

func hostsOf(ctx context.Context, w Way, servers []string) (hosts []Host, err error) {
	all, err := w.All(ctx)
	if errors.Is(err, ErrNone) {
		return nil, nil
	}
	answers := map[string]*tdpdv1.Announced{}
	for _, one := range all {
		a, failed := Announce(ctx, w, one.GetRouter(), &tdpdv1.AnnounceRequest{})
		switch {
		case failed == nil:
			answers[one.GetRouter()] = a
		case !errors.Is(failed, errOlder) && !errors.Is(failed, ErrNoBGP):
			err = errors.Join(err, fmt.Errorf("router %s does not say whether it is on a server's host: %w", one.GetRouter(), failed))
		}
	}
	for _, server := range servers {
		for _, one := range all {
			if a := answers[one.GetRouter()]; a.GetServer() && slices.Contains(a.GetHosts(), server) {
				hosts = append(hosts, Host{server, one.GetRouter(), a})
				break
			}
		}
	}
	return hosts, err
}
