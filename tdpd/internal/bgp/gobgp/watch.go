package gobgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	api "github.com/osrg/gobgp/v3/api"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// How soon a watch that broke is begun again.
const (
	againAfter = 100 * time.Millisecond
	againMost  = 2 * time.Second
)

// batchSize is how many paths the speaker is to put into one message, about.
const batchSize = 256

// Watch implements bgp.Speaker.
func (c *Client) Watch(ctx context.Context) (<-chan []bgp.Event, error) {
	events := make(chan []bgp.Event)
	w := &watcher{client: c, box: newMailbox(), told: map[pathKey]netip.Addr{}, up: map[netip.Addr]bool{}}
	go func() {
		w.box.deliver(ctx, events)
		close(events)
	}()
	go w.run(ctx)
	return events, nil
}

// watcher follows what the speaker tells, over its restarts.
type watcher struct {
	client *Client
	box    *mailbox
	told   map[pathKey]netip.Addr // what was learned and not lost, as the events have it, and of whom
	again  map[pathKey]netip.Addr // of that, what was told before this watch began, and not yet again; nil: that is settled
	listed bool                   // all that the speaker had has been asked for since
	until  time.Time              // then nothing of before is kept any longer
	up     map[netip.Addr]bool    // sessions that are established, as the events have it
}

// run watches until ctx is done.
func (w *watcher) run(ctx context.Context) {
	delay := againAfter
	w.again = map[pathKey]netip.Addr{}
	for {
		begun := time.Now()
		err := w.once(ctx)
		if ctx.Err() != nil {
			return
		}
		w.gone(time.Now())
		if time.Since(begun) > againMost {
			delay = againAfter
		}
		w.client.Log.Debug("the watch of the speaker begins anew", "err", err, "after", delay)
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = min(2*delay, againMost)
	}
}

// gone: the speaker is away, and all sessions with it. What was told is kept until it comes back, or as long as a neighbor would be waited for.
func (w *watcher) gone(now time.Time) {
	for a := range w.up {
		w.box.put(bgp.Event{Neighbor: &bgp.NeighborEvent{Address: a, State: bgp.Idle}}, topic{})
	}
	clear(w.up)
	if w.listed {
		w.again, w.until, w.listed = maps.Clone(w.told), now.Add(w.client.Hold), false
	}
	if !now.Before(w.until) {
		w.giveUp(func(pathKey, netip.Addr) bool { return true })
	}
}

var errEnded = errors.New("the speaker has ended the watch")

// once watches until the speaker goes. The speaker begins to tell changes before it is asked for all that it has: what it says of a path at last is how it is.
func (w *watcher) once(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.client.Foreign { // nothing is taken before it is known whose neighbors there are
		select {
		case <-w.client.neighbors.known:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	type filter = api.WatchEventRequest_Table_Filter
	stream, err := w.client.api.WatchEvent(ctx, &api.WatchEventRequest{
		Peer: &api.WatchEventRequest_Peer{},
		Table: &api.WatchEventRequest_Table{Filters: []*filter{
			{Type: api.WatchEventRequest_Table_Filter_BEST}, {Type: api.WatchEventRequest_Table_Filter_EOR, Init: true},
		}},
		BatchSize: batchSize,
	})
	if err != nil {
		return w.client.failed("watch", err)
	}
	messages, ended := make(chan *api.WatchEventResponse), make(chan error, 1)
	go func() {
		ended <- each(stream, func(r *api.WatchEventResponse) bool {
			select {
			case messages <- r:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	hold := time.NewTimer(time.Until(w.until))
	defer hold.Stop()
	for {
		select {
		case r := <-messages:
			if err := w.message(ctx, r); err != nil {
				return err
			}
		case <-hold.C:
			w.settle()
		case err := <-ended:
			if err == nil {
				return errEnded
			}
			return w.client.failed("watch", err)
		}
	}
}

func (w *watcher) message(ctx context.Context, r *api.WatchEventResponse) error {
	if e := r.GetPeer(); e != nil {
		switch e.GetType() {
		case api.WatchEventResponse_PeerEvent_END_OF_INIT:
			w.box.put(bgp.Event{Began: true}, topic{})
			return w.all(ctx)
		case api.WatchEventResponse_PeerEvent_STATE, api.WatchEventResponse_PeerEvent_INIT:
			w.neighbor(e.GetPeer())
		}
		return nil
	}
	for _, p := range r.GetTable().GetPaths() {
		if p.GetNlri() == nil {
			w.endOfRIB(p)
		} else {
			w.path(p)
		}
	}
	return nil
}

// all asks for all best paths that there are.
func (w *watcher) all(ctx context.Context) error {
	for _, f := range bgp.Families() {
		err := w.client.list(ctx, &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: toFamily(f)}, func(p *api.Path) bool {
			if p.GetBest() {
				w.path(p)
			}
			return true
		})
		if err != nil {
			return w.client.failed(fmt.Sprintf("all routes of %v", f), err)
		}
	}
	w.listed = true
	w.settle()
	return nil
}

func (w *watcher) neighbor(p *api.Peer) {
	n := decodeNeighbor(p)
	if n.Address.IsValid() {
		if delete(w.up, n.Address); n.State == bgp.Established {
			w.up[n.Address] = true
		}
		w.box.put(bgp.Event{Neighbor: &bgp.NeighborEvent{Address: n.Address, State: n.State}}, topic{})
	}
}

// endOfRIB: what a neighbor had told before and not by now, it tells no more.
func (w *watcher) endOfRIB(p *api.Path) {
	from, err := netip.ParseAddr(p.GetNeighborIp())
	family, errFamily := fromFamily(p.GetFamily())
	if err != nil || errFamily != nil {
		return
	}
	w.giveUp(func(k pathKey, of netip.Addr) bool { return of == from && k.family == family })
	w.settle()
}

// path takes the best path to something, or its end.
func (w *watcher) path(p *api.Path) {
	t, err := decode(p)
	key := pathKey{t.family, t.prefix, t.match}
	isOthers := w.client.Foreign && t.from.IsValid() && !w.client.neighbors.has(t.from) // no policy of ours has seen it
	if err != nil && !isOthers {
		w.refused(t, err.Error())
		return
	}
	if t.withdrawn || !t.from.IsValid() || isOthers { // with one of ours there is none of a neighbor that is the best
		w.lost(key)
		return
	}
	if check := w.client.Check; check != nil {
		if why := check(t.learned); why != "" {
			w.refused(t, why)
			return
		}
	}
	if _, has := w.told[key]; !has && len(w.told) >= w.client.Most {
		w.refused(t, "too many")
		return
	}
	w.told[key] = t.from
	delete(w.again, key)
	w.box.put(bgp.Event{Learned: &t.learned}, topic{path: key})
	w.settle()
}

func (w *watcher) lost(key pathKey) {
	if _, has := w.told[key]; !has {
		return
	}
	delete(w.told, key)
	delete(w.again, key)
	w.box.put(bgp.Event{Lost: &bgp.Lost{Family: key.family, Prefix: key.prefix, Match: key.match}}, topic{path: key})
}

func (w *watcher) refused(t told, why string) {
	if t.prefix.IsValid() {
		w.lost(pathKey{t.family, t.prefix, t.match})
	}
	w.box.put(bgp.Event{Refused: &bgp.Refused{From: t.from, Prefix: t.prefix, Why: why, Count: 1}}, topic{from: t.from, why: why})
}

// giveUp loses what was told before and not again.
func (w *watcher) giveUp(which func(k pathKey, of netip.Addr) bool) {
	var gone []pathKey
	for k, of := range w.again {
		if which(k, of) {
			gone = append(gone, k)
		}
	}
	slices.SortFunc(gone, pathKey.compare)
	for _, k := range gone {
		w.lost(k)
	}
}

// settle tells when nothing of before is waited for any more.
func (w *watcher) settle() {
	if !w.listed || w.again == nil {
		return
	}
	if !time.Now().Before(w.until) {
		w.giveUp(func(pathKey, netip.Addr) bool { return true })
	}
	if len(w.again) == 0 {
		w.again = nil
		w.box.put(bgp.Event{Synced: true}, topic{})
	}
}
