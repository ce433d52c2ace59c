package mover

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/manycast/manycast/lbd/internal/handover"
	"github.com/manycast/manycast/lbd/internal/handover/peer"
)

// Link is a link with another server: peer.Link, or a fake.
type Link interface {
	Send(messages ...handover.Message) error
	Receive() (handover.Message, error)
	Close() error
}

// Network makes links.
type Network interface {
	// Dial opens a link to the server of that name; boot is that server's.
	Dial(ctx context.Context, address, name string) (l Link, boot uint64, err error)
	// Serve hands over links that others open, until ctx is done; handle returns when the link is down.
	Serve(ctx context.Context, handle func(l Link, from string, boot uint64)) error
}

// role is which of the machines a link is of.
type role int

const (
	gives role = iota // we dialled
	takes
)

// links are those that are up, by role and the other's name. They belong to the loop.
type links struct {
	up   [2]map[string]Link
	work sync.WaitGroup
}

func newLinks() links { return links{up: [2]map[string]Link{{}, {}}} }

// read tells the loop what comes by a link, and that it is down.
func (m *Mover) read(r role, name string, l Link) {
	for {
		message, err := l.Receive()
		if err != nil {
			m.tell(func(now time.Time) []handover.Action { return m.linkDown(now, r, name, l, err) })
			return
		}
		m.tell(func(now time.Time) []handover.Action {
			if m.links.up[r][name] != l {
				return nil // another one has replaced it
			}
			return m.received(now, r, name, message)
		})
	}
}

func (m *Mover) linkUp(now time.Time, r role, name string, boot uint64, l Link) []handover.Action {
	if was := m.links.up[r][name]; was != nil {
		_ = was.Close() // it is replaced
	}
	m.links.up[r][name] = l
	m.log.Debug("link is up", "server", name, "gives", r == gives)
	if r == gives {
		return m.giver.LinkUp(now, name, boot)
	}
	return m.taker.LinkUp(now, name, boot)
}

func (m *Mover) linkDown(now time.Time, r role, name string, l Link, err error) []handover.Action {
	if m.links.up[r][name] != l {
		return nil
	}
	delete(m.links.up[r], name)
	_ = l.Close() // it is down
	if m.ctx.Err() == nil {
		m.log.Debug("link is down", "server", name, "gives", r == gives, "err", err)
	}
	if r == gives {
		return m.giver.LinkDown(now, name)
	}
	return m.taker.LinkDown(now, name)
}

// dial opens a link to a taker.
func (m *Mover) dial(to, address string) {
	m.links.work.Go(func() {
		l, boot, err := m.cfg.Network.Dial(m.ctx, address, to)
		if err != nil {
			m.log.Warn("no link: connections stay here meanwhile", "server", to, "address", address, "err", err)
			m.tell(func(now time.Time) []handover.Action { return m.giver.LinkDown(now, to) })
			return
		}
		m.tell(func(now time.Time) []handover.Action { return m.linkUp(now, gives, to, boot, l) })
		m.read(gives, to, l)
	})
}

// accept takes a link that a giver has opened.
func (m *Mover) accept(l Link, from string, boot uint64) {
	m.tell(func(now time.Time) []handover.Action { return m.linkUp(now, takes, from, boot, l) })
	m.read(takes, from, l)
}

func (m *Mover) received(now time.Time, r role, from string, message handover.Message) []handover.Action {
	if r == gives {
		return m.giver.Received(now, from, message)
	}
	o, is := message.(handover.Offer)
	if !is {
		return m.taker.Received(now, from, message)
	}
	actions := m.giver.Returned(now, o)
	return append(actions, m.taker.Offered(now, from, o, m.refusal(o))...)
}

// refusal is why an offer is refused.
func (m *Mover) refusal(o handover.Offer) handover.Why {
	if why := m.views.refusal(m.cfg.Name, o); why.Reason != handover.None {
		return why
	}
	if !m.cfg.Apps.Serves(o.Flow.Local) {
		return handover.Why{Reason: handover.Application, Text: "no application that takes connections listens here"}
	}
	known, err := m.cfg.Gates.Knows(plain(o.Flow))
	switch {
	case err != nil:
		return handover.Why{Reason: handover.Kernel, Text: err.Error()}
	case known:
		return handover.Why{Reason: handover.Here}
	}
	return handover.Why{}
}

// TLS makes links by package peer.
type TLS struct {
	Config   peer.Config
	Listener *peer.Listener
	Refused  func(from netip.AddrPort, err error)
}

// Dial implements Network.
func (t TLS) Dial(ctx context.Context, address, name string) (Link, uint64, error) {
	l, err := peer.Dial(ctx, address, name, t.Config)
	if err != nil {
		return nil, 0, err
	}
	return l, l.Peer.Boot, nil
}

// Serve implements Network.
func (t TLS) Serve(ctx context.Context, handle func(l Link, from string, boot uint64)) error {
	return t.Listener.Serve(ctx, func(_ context.Context, l *peer.Link) { handle(l, l.Peer.Name, l.Peer.Boot) }, t.Refused)
}
