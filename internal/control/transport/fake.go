package transport

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"
)

// LAN is a network in memory for tests.
type LAN struct {
	mu   sync.Mutex
	all  map[*Fake]chan<- Packet
	lose func(from, to netip.Addr) bool
}

// NewLAN returns a LAN that loses nothing.
func NewLAN() *LAN { return &LAN{all: make(map[*Fake]chan<- Packet)} }

// Lose makes the LAN lose what lose says yes to; nil: nothing.
func (l *LAN) Lose(lose func(from, to netip.Addr) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose = lose
}

// Join returns a Transport that sends from address.
func (l *LAN) Join(address netip.Addr) *Fake { return &Fake{lan: l, address: address} }

// Fake is a Transport on a LAN.
type Fake struct {
	lan     *LAN
	address netip.Addr
}

var _ Transport = (*Fake)(nil)

// Run implements Transport.
func (f *Fake) Run(ctx context.Context, packets chan<- Packet) error {
	f.lan.mu.Lock()
	f.lan.all[f] = packets
	f.lan.mu.Unlock()
	<-ctx.Done()
	f.lan.mu.Lock()
	delete(f.lan.all, f)
	f.lan.mu.Unlock()
	return nil
}

// Send implements Transport. What a receiver has no room for is lost.
func (f *Fake) Send(payload []byte) error {
	f.lan.mu.Lock()
	defer f.lan.mu.Unlock()
	if f.lan.all[f] == nil {
		return fmt.Errorf("%w: not running", ErrNowhere)
	}
	for other, packets := range f.lan.all {
		if other == f || f.lan.lose != nil && f.lan.lose(f.address, other.address) {
			continue
		}
		select {
		case packets <- Packet{"lan", f.address, bytes.Clone(payload)}:
		default:
		}
	}
	return nil
}
