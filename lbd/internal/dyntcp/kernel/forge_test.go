package kernel

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// forger is a host beside the path, which sees nothing of it and sends with any source address.
type forger struct {
	t      testing.TB
	v4, v6 int
}

func (p *path) forger() forger {
	p.t.Helper()
	evil := p.net.Node("evil")
	p.net.Link(evil, "eth0", "10.9.0.66/24", p.router, "evil", "10.9.0.1/24")
	evil.Address("eth0", "2001:db8:9::66/64")
	p.router.Address("evil", "2001:db8:9::1/64")
	evil.Route("default", "10.9.0.1")
	evil.Route("::/0", "2001:db8:9::1")
	f := forger{t: p.t}
	err := evil.Do(func() (err error) {
		if f.v4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return err
		}
		f.v6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		unix.Close(f.v4)
		unix.Close(f.v6)
	})
	return f
}

// send sends a segment; of s its addresses, flags, numbers and options count.
func (f forger) send(s segment, payload string) {
	f.t.Helper()
	l4 := make([]byte, 20, 20+len(s.options)+len(payload))
	binary.BigEndian.PutUint16(l4, s.src.Port())
	binary.BigEndian.PutUint16(l4[2:], s.dst.Port())
	binary.BigEndian.PutUint32(l4[4:], s.seq)
	binary.BigEndian.PutUint32(l4[8:], s.ack)
	l4[12], l4[13] = byte((20+len(s.options))/4)<<4, s.flags
	binary.BigEndian.PutUint16(l4[14:], 512)
	l4 = append(append(l4, s.options...), payload...)
	src, dst := s.src.Addr().AsSlice(), s.dst.Addr().AsSlice()
	pseudo := append(append([]byte{0, unix.IPPROTO_TCP, byte(len(l4) >> 8), byte(len(l4))}, src...), dst...)
	binary.BigEndian.PutUint16(l4[16:], sum(append(pseudo, l4...)))
	var err error
	if s.src.Addr().Is4() {
		ip := append([]byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, unix.IPPROTO_TCP, 0, 0}, append(src, dst...)...) // the kernel fills in length and sum
		err = unix.Sendto(f.v4, append(ip, l4...), 0, &unix.SockaddrInet4{Addr: [4]byte(dst)})
	} else {
		ip := append([]byte{0x60, 0, 0, 0, byte(len(l4) >> 8), byte(len(l4)), unix.IPPROTO_TCP, 64}, append(src, dst...)...)
		err = unix.Sendto(f.v6, append(ip, l4...), 0, &unix.SockaddrInet6{Addr: [16]byte(dst)})
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// sendBehind sends a datagram of IPv6 behind destination options that say nothing (RFC 8200 section 4.6).
func (f forger) sendBehind(extensions int, src, dst netip.AddrPort, payload []byte) {
	f.t.Helper()
	udp := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(udp, src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	udp = append(udp, payload...)
	from, to := src.Addr().AsSlice(), dst.Addr().AsSlice()
	pseudo := append(append([]byte{0, unix.IPPROTO_UDP, udp[4], udp[5]}, from...), to...)
	binary.BigEndian.PutUint16(udp[6:], sum(append(pseudo, udp...)))
	next := byte(unix.IPPROTO_UDP)
	for range extensions {
		udp = append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, udp...) // PadN
		next = unix.IPPROTO_DSTOPTS
	}
	ip := append([]byte{0x60, 0, 0, 0, byte(len(udp) >> 8), byte(len(udp)), next, 64}, append(from, to...)...)
	if err := unix.Sendto(f.v6, append(ip, udp...), 0, &unix.SockaddrInet6{Addr: [16]byte(to)}); err != nil {
		f.t.Fatal(err)
	}
}

// sum is the checksum of RFC 1071.
func sum(b []byte) uint16 {
	var n uint32
	for i, v := range b {
		n += uint32(v) << (8 * (1 - i%2))
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return ^uint16(n)
}

// next is the segment that the user sends next: it begins where its last one has ended, and acknowledges all that has come.
func (p *path) next(wire *tap, c pair) segment {
	p.t.Helper()
	user := c.flow().User
	var n segment
	for _, s := range wire.segments() {
		if s.src == user {
			n.seq = s.seq + uint32(s.payload)
			if s.flags&flagSYN != 0 {
				n.seq++
			}
		}
		if s.dst == user {
			n.ack = s.seq + uint32(s.payload)
		}
	}
	n.src, n.flags = user, flagACK
	return n
}

// isNotHeard checks that the server answers from the VIP still, that the connection goes on, and that neither end has reset it.
func (p *path) isNotHeard(what string, s Server, c pair, wire *tap) {
	p.t.Helper()
	if h := p.held(s, c); h.Heard {
		p.t.Fatalf("%s: the server has %+v", what, h)
	}
	select {
	case h := <-s.Heard():
		p.t.Fatalf("%s: heard %+v", what, h)
	default:
	}
	p.echo(c)
	for _, seg := range wire.segments() {
		if flow := c.flow(); seg.flags&flagRST != 0 && (seg.src == flow.User || seg.dst == flow.User && seg.src == flow.VIP) {
			p.t.Fatalf("%s: a reset from %s to %s", what, seg.src, seg.dst)
		}
	}
}

// Whoever sees nothing of a connection, and sends to its server's own address as if it were the user, is not taken for it: neither while the user is at the
// VIP, nor from a move until the user has followed it. That takes both numbers of the next segment, which could be of the stream as well.
func TestNetForgedSegmentIsNotTheUsers(t *testing.T) {
	for name, e := range families {
		for what, at := range map[string]netip.AddrPort{"at the VIP": e.s1, "after a move": e.also} {
			t.Run(name+" "+what, func(t *testing.T) {
				p := newPath(t)
				client, server, evil := p.client(), p.server(p.s1), p.forger()
				if at == e.s1 { // over IPv6 the user is at the VIP whatever is published
					if err := client.Set([]ClientService{{VIP: e.vip}}); err != nil {
						t.Fatal(err)
					}
				}
				wire := p.tap(p.router, "users")
				c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
				p.echo(c)
				if at == e.also {
					h := p.held(server, c)
					h.Destination, h.Heard, h.Sequence = e.also, false, 1
					p.withSocket(c.server, func(fd int) error { return server.Adopt(fd, h) })
				}
				for what, change := range map[string]func(*segment){
					"all of its numbers are wrong":   func(s *segment) { s.seq, s.ack = s.seq+1<<31, s.ack+1<<31 },
					"a byte ahead":                   func(s *segment) { s.seq++ },
					"a byte behind":                  func(s *segment) { s.seq-- },
					"at the window's end":            func(s *segment) { s.seq += 60000 },
					"acknowledges what was not sent": func(s *segment) { s.ack++ },
					"acknowledges what was before":   func(s *segment) { s.ack -= 100 },
					"acknowledges nothing":           func(s *segment) { s.flags, s.ack = 0, 0 },
					"opens":                          func(s *segment) { s.flags = flagSYN },
					"resets, out of the window":      func(s *segment) { s.flags, s.seq = flagRST|flagACK, s.seq+1<<31 },
				} {
					before := serverCounters(t, server)
					s := p.next(wire, c)
					s.dst = at
					change(&s)
					evil.send(s, "")
					if s.flags == flagSYN { // is for nobody: who listens at the address itself may be others
						p.isNotHeard(what, server, c, wire)
						continue
					}
					testnet.Eventually(t, 20*time.Second, func() bool { return serverCounters(t, server).Doubted > before.Doubted }, what, " is doubted")
					p.isNotHeard(what, server, c, wire)
				}
				// What is left: one of 2^64, and a few more where more is on its way.
				s := p.next(wire, c)
				s.dst = at
				evil.send(s, "")
				h := p.held(server, c)
				heard(t, server, Heard{Flow: c.flow(), Tag: h.Tag, Cookie: h.Cookie, Sequence: h.Sequence})
			})
		}
	}
}

// A handshake that ends at the VIP is not taken for one that has ended at the destination because somebody has sent there meanwhile, or before, with the option
// or without.
func TestNetForgedEndOfHandshake(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			client, server, evil := p.client(), p.server(p.s1), p.forger()
			if err := client.Set([]ClientService{{VIP: e.vip}}); err != nil {
				t.Fatal(err)
			}
			wire := p.tap(p.router, "users")
			l := p.listen(p.s1, e.vip.String())
			user := netip.AddrPortFrom(e.user.Addr(), 40001)
			before := serverCounters(t, server)
			evil.send(segment{src: user, dst: e.s1, flags: flagACK, seq: 1, ack: 2, options: append(golden(t, "option", 1, [8]byte{2}, e.s1), 1, 1)}, "")
			testnet.Eventually(t, 20*time.Second, func() bool { return serverCounters(t, server).Received > before.Received }, "what is no connection's is taken")
			c := p.connectFrom(user, e.vip, l)
			if n := serverCounters(t, server); n.Doubted != before.Doubted+1 {
				t.Errorf("counted %+v", n)
			}
			if h := p.held(server, c); h.Heard {
				t.Errorf("the server has %+v", h)
			}
			p.echo(c)

			// Between the SYN-ACK and what ends the handshake.
			p.nft(p.router, "add table inet m; add chain inet m f { type filter hook forward priority 0; }; "+
				`add rule inet m f iifname "users" tcp flags & syn == 0 drop`)
			go func() {
				_, synack := wire.find(flagSYN, func(s segment) bool { return s.src.Port() == 40002 }), wire.find(flagSYN|flagACK, func(s segment) bool { return s.dst.Port() == 40002 })
				evil.send(segment{src: synack.dst, dst: e.s1, flags: flagACK, seq: synack.ack + 1<<31, ack: synack.seq + 1}, "")
				for serverCounters(t, server).Received < before.Received+2 {
					time.Sleep(time.Millisecond)
				}
				p.nft(p.router, "delete table inet m")
			}()
			c = p.connectFrom(netip.AddrPortFrom(user.Addr(), 40002), e.vip, l)
			if n := serverCounters(t, server); n.Doubted != before.Doubted+2 {
				t.Errorf("counted %+v", n)
			}
			p.isNotHeard("what was forged meanwhile", server, c, wire)
		})
	}
}
