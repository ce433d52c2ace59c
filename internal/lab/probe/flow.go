// Package probe measures in a lab what becomes of single packets: a flow of numbered ones from many users, and captures that
// tell where and when each came.
package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/manycast/manycast/internal/netns"
)

// payloadBytes is the size of a packet's payload; its number comes first.
const payloadBytes = 16

// Flow is many users that send in turn, at an even pace.
type Flow struct {
	users []*net.UDPConn
	stop  chan struct{}
	done  chan struct{}
	sent  uint64
	err   error
}

// Send starts a flow to an address, one packet each interval, from a namespace that has the users' addresses.
func Send(ns *netns.Namespace, users []netip.Addr, to netip.AddrPort, every time.Duration) (*Flow, error) {
	f := &Flow{stop: make(chan struct{}), done: make(chan struct{})}
	for _, u := range users {
		if err := f.open(ns, u); err != nil {
			f.close()
			return nil, err
		}
	}
	go f.run(to, every)
	return f, nil
}

func (f *Flow) open(ns *netns.Namespace, user netip.Addr) error {
	return ns.Do(func() error {
		c, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp4", netip.AddrPortFrom(user, 0).String())
		if err != nil {
			return fmt.Errorf("user %v: %w", user, err)
		}
		f.users = append(f.users, c.(*net.UDPConn))
		return ipv4.NewPacketConn(c).SetMulticastTTL(16)
	})
}

func (f *Flow) close() {
	for _, c := range f.users {
		c.Close()
	}
}

// run sends whatever is due, so that a late timer makes no packet fewer.
func (f *Flow) run(to netip.AddrPort, every time.Duration) {
	defer close(f.done)
	defer f.close()
	payload := make([]byte, payloadBytes)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for began := time.Now(); ; {
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
		for due := uint64(time.Since(began) / every); f.sent < due; f.sent++ {
			binary.BigEndian.PutUint64(payload, f.sent)
			if _, err := f.users[f.sent%uint64(len(f.users))].WriteToUDPAddrPort(payload, to); err != nil {
				f.err = fmt.Errorf("packet %d: %w", f.sent, err)
				return
			}
		}
	}
}

// Stop ends the flow and returns how many packets were sent, numbered from 0.
func (f *Flow) Stop() (uint64, error) {
	close(f.stop)
	<-f.done
	return f.sent, f.err
}
