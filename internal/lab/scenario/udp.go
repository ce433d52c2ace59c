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

	"github.com/manycast/manycast/internal/lab/report"
)

// udp lets every user send a datagram to the VIP and one to the group itself: its owner has to answer both.
func (m *multicast) udp(ctx context.Context) error {
	for _, name := range []string{"vip", "group"} {
		wrong, err := m.askAll(ctx, net.JoinHostPort(m.vars[name], "80"), m.web)
		if err != nil {
			return err
		}
		m.check("UDP to the "+name, len(wrong) == 0, "%d of %d users answered by their owner%s", len(m.users)-len(wrong), len(m.users), some(wrong))
	}
	return nil
}

// askAll lets every user send a datagram and says who was not answered by its owner. Around a move both may answer for a moment:
// whoever got the other one's answer, or none, asks again until that moment is over.
func (m *multicast) askAll(ctx context.Context, to string, f *follower) (wrong []string, err error) {
	deadline := time.Now().Add(report.Settle)
	for _, u := range m.users {
		for {
			want := f.owner(u)
			server, err := m.ask(ctx, u, to)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err == nil && server == want {
				break
			}
			if time.Now().After(deadline) {
				wrong = append(wrong, fmt.Sprintf("%v: %q for %s, %v", u, server, want, err))
				break
			}
		}
	}
	return wrong, nil
}

// some are the first few of a list, to go behind a text.
func some(list []string) string {
	text := strings.Join(list[:min(3, len(list))], "; ")
	if text != "" {
		text = ": " + text
	}
	return text
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
