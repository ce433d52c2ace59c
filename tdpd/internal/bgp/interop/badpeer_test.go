package interop

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// badPeer is a neighbor by hand, at FRR's place: it says what it is told to, byte by byte.
type badPeer struct {
	t    *testing.T
	conn net.Conn
}

// Types of messages (RFC 4271 section 4.1).
const (
	msgOpen      = 1
	msgUpdate    = 2
	msgKeepalive = 4
)

// badPeers are at FRR's place.
func (r *rig) badPeers(as4 bool) <-chan *badPeer {
	r.t.Helper()
	return badPeers(r.t, r.peer, "10.0.1.2:179", as4)
}

// badPeers waits for our connections, and hands out each whose OPENs have been exchanged. as4: it speaks of four-octet ASes.
func badPeers(t *testing.T, at *testnet.Node, address string, as4 bool) <-chan *badPeer {
	t.Helper()
	l, err := at.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan *badPeer, 16)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p := &badPeer{t, c}
			if p.open(as4) == nil {
				out <- p
			} else {
				c.Close()
			}
		}
	}()
	return out
}

func (r *rig) next(peers <-chan *badPeer) *badPeer {
	r.t.Helper()
	select {
	case p := <-peers:
		r.t.Cleanup(func() { p.conn.Close() })
		return p
	case <-time.After(soon):
		r.t.Fatal("the speaker does not connect")
		return nil
	}
}

// connects has a bad peer connect to us, again and again until there is a session.
func (r *rig) connects(from *testnet.Node, address string) (p *badPeer) {
	r.t.Helper()
	r.eventually(func() bool {
		c, err := from.DialContext(r.t.Context(), "tcp", address)
		if err != nil {
			return false
		}
		if p = (&badPeer{r.t, c}); p.open(true) != nil {
			c.Close()
			return false
		}
		return true
	}, "a session of a bad peer's")
	r.t.Cleanup(func() { p.conn.Close() })
	return p
}

// families are AFI and SAFI of those that a badPeer speaks.
var families = map[bgp.Family][3]byte{bgp.IPv4Unicast: {0, 1, 1}, bgp.IPv6Unicast: {0, 2, 1}, bgp.IPv4Labelled: {0, 1, 4}, bgp.IPv6Labelled: {0, 2, 4}}

// open exchanges OPEN and KEEPALIVE, and goes on with the latter. Graceful restart of 60 s is for IPv4 unicast, and what was kept (F).
func (p *badPeer) open(as4 bool) error {
	caps := []byte{64, 6, 0, 60, 0, 1, 1, 0x80}
	for _, f := range families {
		caps = append(caps, 1, 4, f[0], f[1], 0, f[2])
	}
	as := uint16(frrAS)
	if as4 {
		caps = append(caps, 65, 4, 0, 0, 0xfd, 0xe9)
	}
	body := []byte{4, byte(as >> 8), byte(as), 0, 90, 10, 0, 1, 2, byte(len(caps) + 2), 2, byte(len(caps))}
	_ = p.conn.SetDeadline(time.Now().Add(soon))
	if err := p.write(msgOpen, append(body, caps...)); err != nil {
		return err
	}
	if err := p.write(msgKeepalive, nil); err != nil {
		return err
	}
	for range 2 { // OPEN, KEEPALIVE
		if _, _, err := p.read(); err != nil {
			return err
		}
	}
	_ = p.conn.SetDeadline(time.Time{})
	go func() {
		for {
			if _, _, err := p.read(); err != nil {
				return
			}
		}
	}()
	return nil
}

func (p *badPeer) write(kind byte, body []byte) error {
	head := make([]byte, 19, 19+len(body))
	for i := range 16 {
		head[i] = 0xff
	}
	binary.BigEndian.PutUint16(head[16:], uint16(19+len(body)))
	head[18] = kind
	_, err := p.conn.Write(append(head, body...))
	return err
}

func (p *badPeer) read() (kind byte, body []byte, err error) {
	head := make([]byte, 19)
	if _, err := io.ReadFull(p.conn, head); err != nil {
		return 0, nil, err
	}
	body = make([]byte, max(int(binary.BigEndian.Uint16(head[16:])), 19)-19)
	_, err = io.ReadFull(p.conn, body)
	return head[18], body, err
}

// attributes are ORIGIN, AS_PATH of the neighbor's AS in four octets, and NEXT_HOP.
func attributes() []byte { return append(origin(), 0x40, 3, 4, 10, 0, 1, 2) }

func origin() []byte { return []byte{0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9} }

// live has it say every second that it is there, as long as the session lasts: who takes long over what it told would find it silent for the hold time.
func (p *badPeer) live() {
	go func() {
		for range time.Tick(time.Second) {
			if p.write(msgKeepalive, nil) != nil {
				return
			}
		}
	}()
}

// update is one of RFC 4271 section 4.3.
func update(attributes []byte, withdrawn, told []netip.Prefix) []byte {
	w, n := nlri(withdrawn), nlri(told)
	body := binary.BigEndian.AppendUint16(nil, uint16(len(w)))
	body = append(body, w...)
	body = binary.BigEndian.AppendUint16(body, uint16(len(attributes)))
	return append(append(body, attributes...), n...)
}

func nlri(prefixes []netip.Prefix) (out []byte) {
	for _, p := range prefixes {
		a := p.Addr().As4()
		out = append(append(out, byte(p.Bits())), a[:(p.Bits()+7)/8]...)
	}
	return out
}

// tell announces prefixes, as many in a message as it holds.
func (p *badPeer) tell(prefixes []netip.Prefix) error {
	for len(prefixes) > 0 {
		n := min(len(prefixes), 800)
		if err := p.write(msgUpdate, update(attributes(), nil, prefixes[:n])); err != nil {
			return err
		}
		prefixes = prefixes[n:]
	}
	return nil
}

// tellOf announces prefixes of any family in MP_REACH_NLRI (RFC 4760), those with labels with label 16 (RFC 8277); they have to fit into one message.
func (p *badPeer) tellOf(f bgp.Family, prefixes []netip.Prefix) error {
	hop := frr6.AsSlice()
	if f.Is4() {
		hop = frr4.AsSlice()
	}
	id := families[f]
	reach := append(append(id[:], byte(len(hop))), hop...)
	reach = append(reach, 0)
	for _, one := range prefixes {
		bits, label := one.Bits(), []byte(nil)
		if f.Labelled() {
			bits, label = bits+24, []byte{0, 1, 1}
		}
		reach = append(append(reach, byte(bits)), label...)
		reach = append(reach, one.Addr().AsSlice()[:(one.Bits()+7)/8]...)
	}
	all := binary.BigEndian.AppendUint16(append(origin(), 0x90, 14), uint16(len(reach)))
	return p.write(msgUpdate, update(append(all, reach...), nil, nil))
}

// endOfRIB is the empty UPDATE of RFC 4724 section 2.
func (p *badPeer) endOfRIB() error { return p.write(msgUpdate, []byte{0, 0, 0, 0}) }

// prefixes are n different ones of length 24.
func prefixes(first string, n int) []netip.Prefix {
	a := binary.BigEndian.Uint32(netip.MustParseAddr(first).AsSlice())
	out := make([]netip.Prefix, n)
	for i := range out {
		out[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, a+uint32(i)<<8))), 24)
	}
	return out
}
