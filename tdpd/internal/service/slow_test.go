package service

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/transport"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// many are that many routes that end here.
func many(n int) map[netip.Prefix]*routes.Route {
	all := map[netip.Prefix]*routes.Route{}
	for i := range n {
		all[netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1 + byte(i>>16), byte(i >> 8), byte(i)}), 32)] = via("", 2)
	}
	return all
}

// stuffed is a network that much has come by.
type stuffed struct {
	transport.Network
	events chan transport.Event
}

func (n stuffed) Events() <-chan transport.Event { return n.events }

// TestPeerThatAsksForAllAgainAndAgain is told it once, and may have little more waiting than it is told.
func TestPeerThatAsksForAllAgainAndAgain(t *testing.T) {
	const fecs, asked = 500, 1000
	s, c := passive(t, nil), &recorder{remote: addr("9.9.9.9")}
	greet(s, false)
	connect(s, c)
	s.routesChanged(start, routes.Change{Full: true, Interfaces: map[int]*routes.Interface{2: iface(2, "a", "10.0.0.1/24")}, Routes: many(fecs)})
	hear := func(m wire.Message) {
		s.event(start, transport.Received{Conn: c, Sender: other, Messages: []transport.Message{{Message: m}}})
	}
	hear(wire.KeepAlive{})
	s.flush(start)
	before := len(c.sent)
	for id := range uint32(asked) {
		hear(wire.LabelRequest{Head: wire.Head{ID: id}, FEC: wire.FEC{wire.TypedWildcard{Family: wire.IPv4}}})
	}
	s.flush(start)
	if n := len(c.sent) - before; n != s.labels.Size() || n < fecs {
		t.Errorf("%d messages answer %d requests for %d labels", n, asked, s.labels.Size())
	}
	if c.most < 2*fecs || c.most > 1<<17 {
		t.Errorf("%d messages may wait", c.most)
	}
}

// TestMuchToSayEndsATurn: what is to be said leaves before more is heard.
func TestMuchToSayEndsATurn(t *testing.T) {
	events := make(chan transport.Event, 1)
	s, c := passive(t, func(o *Options) { o.Network = stuffed{o.Network, events} }), &recorder{remote: addr("9.9.9.9")}
	s.routesChanged(start, routes.Change{Full: true, Interfaces: map[int]*routes.Interface{2: iface(2, "a", "10.0.0.1/24")}, Routes: many(saysAtOnce)})
	greet(s, false)
	connect(s, c)
	up := transport.Received{Conn: c, Sender: other, Messages: []transport.Message{{Message: wire.KeepAlive{}}}}
	events <- up
	s.events(up)
	if len(events) != 1 {
		t.Fatalf("the next message is taken while %d wait to be said", len(s.pending.says))
	}
	s.flush(start)
	s.events(<-events)
	if s.flush(start); len(events) != 0 || len(c.sent) < saysAtOnce {
		t.Errorf("%d messages are said", len(c.sent))
	}
}

// busy is a kernel whose changes take their time.
type busy struct {
	*kernel.Fake
	takes   time.Duration
	updates int // that took it
}

func (b *busy) Update(c kernel.Changes) error {
	if b.takes > 0 {
		b.updates++
	}
	time.Sleep(b.takes)
	return b.Fake.Update(c)
}

// TestPeersAreHeardBeforeTheyExpire: to a loop that stood still peers are unread, not silent, whenever they spoke last. That a peer may
// have given us up is another matter.
func TestPeersAreHeardBeforeTheyExpire(t *testing.T) {
	for phase := time.Duration(0); phase < time.Second; phase += 100 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			short := func(o *Options) {
				o.Config.Hello.LinkHold, o.Config.Session.KeepAlive = 3*time.Second, 3*time.Second
			}
			f, k := transport.NewFabric(), &busy{Fake: kernel.NewFake(kernel.State{})}
			r1 := begin(t, f, "r1", "1.1.1.1", filepath.Join(t.TempDir(), "1"), kernel.State{}, short, func(o *Options) { o.Kernel = k })
			time.Sleep(phase / 2)
			r2 := begin(t, f, "r2", "2.2.2.2", filepath.Join(t.TempDir(), "2"), kernel.State{}, short)
			f.Link(r1.net, "a", addr("10.0.12.1"), r2.net, "a", addr("10.0.12.2"))
			r1.routes.Send(routes.Change{Full: true, Interfaces: map[int]*routes.Interface{2: iface(2, "a", "10.0.12.1/24")}})
			r2.routes.Send(routes.Change{
				Full: true, Interfaces: map[int]*routes.Interface{2: iface(2, "a", "10.0.12.2/24")},
				Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): via("", 2)},
			})
			time.Sleep(20*time.Second + phase)
			k.takes = 2400 * time.Millisecond
			r1.routes.Send(routes.Change{Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): via("10.0.12.2", 2)}})
			synctest.Wait()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if log := r1.log.String(); k.updates == 0 || strings.Contains(log, "adjacency is down") || strings.Contains(log, "nothing heard") {
				t.Errorf("phase %v: %d changes that take long, and the peer is given up", phase, k.updates)
			}
			k.takes = 0
			for _, r := range []*router{r1, r2} {
				if err := r.stop(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestDropped: messages that cannot be sent are told of, once for many.
func TestDropped(t *testing.T) {
	var log bytes.Buffer
	s, c := passive(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }), &recorder{remote: addr("9.9.9.9")}
	greet(s, false)
	connect(s, c)
	for range 100 {
		s.event(start, transport.Dropped{Conn: c, Message: wire.LabelMapping{}, Err: errors.New("too large")})
	}
	s.event(start, transport.Dropped{Conn: &recorder{}, Err: errors.New("of nobody")})
	if n := strings.Count(log.String(), "too large"); n != 1 || !strings.Contains(log.String(), other.String()) || strings.Contains(log.String(), "nobody") || !hasSession(s) {
		t.Errorf("told %d times, session %v:\n%s", n, hasSession(s), log.String())
	}
	s.event(start.Add(retryLater), transport.Dropped{Conn: c, Message: wire.LabelMapping{}, Err: errors.New("too large")})
	if n := strings.Count(log.String(), "too large"); n != 2 {
		t.Errorf("told %d times", n)
	}
}
