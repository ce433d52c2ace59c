package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/ipv4"
)

// udp lets every user send a datagram to the VIP and one to the group itself: its owner has to answer both.
func (m *multicast) udp(ctx context.Context) error {
	for _, name := range []string{"vip", "group"} {
		to := m.vars[name]
		var wrong []string
		for _, u := range m.users {
			m.mu.Lock()
			want := m.tally.Timeline.Owner(u, time.Now())
			m.mu.Unlock()
			server, err := m.ask(ctx, u, net.JoinHostPort(to, "80"))
			if err != nil || server != want {
				wrong = append(wrong, fmt.Sprintf("%v: %q for %s, %v", u, server, want, err))
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		detail := strings.Join(wrong[:min(3, len(wrong))], "; ")
		m.check("UDP to the "+name, len(wrong) == 0, "%d of %d users answered by their owner %s", len(m.users)-len(wrong), len(m.users), detail)
	}
	return nil
}

// ask sends a datagram and returns the server that answers first. The answer comes from the VIP, whatever it was sent to.
func (m *multicast) ask(ctx context.Context, user netip.Addr, to string) (server string, err error) {
	ns, err := m.lab.Namespace("users")
	if err != nil {
		return "", err
	}
	var c net.PacketConn
	err = ns.Do(func() error {
		c, err = (&net.ListenConfig{}).ListenPacket(ctx, "udp4", net.JoinHostPort(user.String(), "0"))
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	dst, err := net.ResolveUDPAddr("udp4", to)
	if err != nil {
		return "", err
	}
	if err := errors.Join(ipv4.NewPacketConn(c).SetMulticastTTL(16), c.SetDeadline(time.Now().Add(time.Second))); err != nil {
		return "", err
	}
	if _, err := c.WriteTo([]byte("hello"), dst); err != nil {
		return "", err
	}
	buf := make([]byte, 1500)
	n, _, err := c.ReadFrom(buf)
	server, _, _ = strings.Cut(string(buf[:n]), " ")
	return server, err
}
