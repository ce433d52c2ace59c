package server

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/cli/internal/routers"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// leaveHosts has the routers on drained servers' own hosts withdraw their routes, in order: the servers' users are others' by now. A host whose server
// has users of another service stays.
func (o *wish) leaveHosts(ctx context.Context, snap *pool.Snapshot, servers []pool.Server) error {
	return o.eachHost(ctx, servers, func(w routers.Way, router string, _ *tdpdv1.Announced, address string) error {
		if other := serving(snap, address); other != "" {
			fmt.Fprintf(o.factory.Err, "%s: goes on announcing %s, which serves %s\n", router, address, other)
			return nil
		}
		a, err := routers.Announce(ctx, w, router, &tdpdv1.AnnounceRequest{Change: &tdpdv1.AnnounceRequest_Drain{Drain: true}})
		if err != nil {
			return err
		}
		return o.followHost(ctx, w, router, a, "out")
	})
}

// enterHosts has them announce their routes again, before the servers get users; with wait it ends when neighbors have them.
func (o *wish) enterHosts(ctx context.Context, servers []pool.Server) error {
	return o.eachHost(ctx, servers, func(w routers.Way, router string, a *tdpdv1.Announced, _ string) (err error) {
		if a.GetDrained() {
			a, err = routers.Announce(ctx, w, router, &tdpdv1.AnnounceRequest{Change: &tdpdv1.AnnounceRequest_Back{Back: true}})
		}
		if err != nil || !o.wait {
			return err
		}
		return o.followHost(ctx, w, router, a, "in")
	})
}

func (o *wish) followHost(ctx context.Context, w routers.Way, router string, a *tdpdv1.Announced, until string) error {
	_, err := routers.Follow(ctx, w, router, a, until, o.factory.Timeout, func(text string) { fmt.Fprintln(o.factory.Err, text) })
	return err
}

// eachHost calls with the routers on servers' own hosts, where there are any that announce by BGP. It is an error, too, where that is not known.
func (o *wish) eachHost(ctx context.Context, servers []pool.Server, do func(w routers.Way, router string, a *tdpdv1.Announced, address string) error) error {
	w, err := routers.Open(ctx, o.factory, "")
	if err != nil {
		return err
	}
	defer w.Close()
	var addresses []string
	for _, m := range servers {
		if m.Address != "" && !slices.Contains(addresses, m.Address) {
			addresses = append(addresses, m.Address)
		}
	}
	hosts, err := routers.HostsOf(ctx, w, addresses)
	errs := []error{err}
	for _, h := range hosts {
		errs = append(errs, do(w, h.Router, h.Announced, h.Server))
	}
	return errors.Join(errs...)
}

// serving is a service, as SERVICE/NAME, that is not drained at an address, or has users there; "": none.
func serving(snap *pool.Snapshot, address string) string {
	for _, svc := range snap.Services {
		for _, m := range svc.Servers {
			if m.Address == address && (!m.Drained || svc.Share(m.Name) > 0) {
				return m.Service + "/" + m.Name
			}
		}
	}
	return ""
}
