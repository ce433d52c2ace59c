package leader_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/channel"
	"github.com/manycast/manycast/internal/control/controltest"
	"github.com/manycast/manycast/internal/control/members"
	"github.com/manycast/manycast/internal/control/transport"
	"github.com/manycast/manycast/internal/keyfile"
)

// medium carries a network's control channel.
type medium interface {
	join(who control.Member, beat func()) memberOf
	Cut(from, to string, cut bool)
}

// memberOf is a member's end of a medium.
type memberOf interface {
	control.Channel
	Pause(d time.Duration) error
	Mute(mute bool)
	Leave()
}

// hubMedium is the channel in memory, without frames.
type hubMedium struct{ *control.Hub }

func (h hubMedium) join(who control.Member, beat func()) memberOf { return h.Join(who, beat) }

// lanMedium is the real channel, frames and signatures and all, on a network in memory.
type lanMedium struct {
	t   *testing.T
	lan *transport.LAN

	mu        sync.Mutex
	addresses map[string]netip.Addr
	known     map[string][]members.Known // of servers' lives before
	lost      map[[2]netip.Addr]bool
	boots     byte
}

func newLAN(t *testing.T) *lanMedium {
	l := &lanMedium{t: t, lan: transport.NewLAN(), addresses: map[string]netip.Addr{}, known: map[string][]members.Known{}, lost: map[[2]netip.Addr]bool{}}
	l.lan.Lose(func(from, to netip.Addr) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.lost[[2]netip.Addr{from, to}]
	})
	return l
}

// address gives those an address that have none.
func (l *lanMedium) address(name string) netip.Addr {
	if !l.addresses[name].IsValid() {
		l.addresses[name] = netip.AddrFrom4([4]byte{10, 9, 0, byte(len(l.addresses) + 1)})
	}
	return l.addresses[name]
}

func (l *lanMedium) Cut(from, to string, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost[[2]netip.Addr{l.address(from), l.address(to)}] = cut
}

func (l *lanMedium) join(who control.Member, beat func()) memberOf {
	l.mu.Lock()
	address := l.address(who.Name)
	l.boots++
	random, known := rand.NewChaCha8([32]byte{l.boots}), l.known[who.Name]
	l.mu.Unlock()
	way := &muted{Transport: l.lan.Join(address)}
	c, err := channel.New(channel.Config{
		Identity:  controltest.Identity(who.Name, who.Role, who.Leader, address, time.Now()),
		Authority: controltest.Authority().Public(), Group: controltest.Group, Heartbeat: netHeartbeat, DeadAfter: netSilence, FrameMax: 1200,
		Known: known, Transport: way, Random: random, Log: testLog(l.t).With("member", who.Name),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	c.SetKeys([]keyfile.Group{controltest.GroupKey(1)})
	if beat != nil {
		c.OnBeat(beat)
	}
	m := &lanMember{Channel: c, way: way, ended: make(chan error, 1), left: func() {
		if who.Role == control.Server {
			l.mu.Lock()
			l.known[who.Name] = c.Known() // as from its file
			l.mu.Unlock()
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() {
		time.Sleep(time.Millisecond) // in which its owner says how it is
		m.ended <- c.Run(ctx)
	}()
	return m
}

// lanMember is a real channel that can be silenced.
type lanMember struct {
	*channel.Channel
	way    *muted
	cancel func()
	ended  chan error
	left   func()
}

func (m *lanMember) Mute(mute bool) {
	m.way.mu.Lock()
	defer m.way.mu.Unlock()
	m.way.mute = mute
}

// Leave ends the member without a word.
func (m *lanMember) Leave() {
	m.Mute(true)
	m.cancel()
	<-m.ended
	m.left()
}

// muted is a Transport by which nothing leaves for a while.
type muted struct {
	transport.Transport
	mu   sync.Mutex
	mute bool
}

func (m *muted) Send(payload []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mute {
		return fmt.Errorf("%w: muted", transport.ErrNowhere)
	}
	return m.Transport.Send(payload)
}
