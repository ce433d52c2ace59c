package fastpath

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
)

const dontFragment = 0x4000

// onesSum is the sum of 16-bit words (RFC 1071): 0xffff where a checksum in them is right.
func onesSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// TestNetWhatIsTooLongIsTold: the sender hears of the router itself what the link takes, less the label that comes on top.
func TestNetWhatIsTooLongIsTold(t *testing.T) {
	f := open(t)
	s := halves(t)
	s.Labels = map[uint32][]Hop{
		100: {{Interface: 7, How: Label, Label: 200, To: next, From: here, MTU: 1500}},
		101: {{Interface: 7, How: Bare, To: next, From: here, MTU: 1400}},
	}
	p := plan(t, map[steer.Owner]string{1: "0.0.0.0/0.0.0.0"})
	s.VIPs = map[netip.Addr]*steer.Plan{vip4: p, vip6: p}
	set(t, f, s)
	four := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 6, ttl: 64, fragment: dontFragment, payload: bytes.Repeat([]byte("four"), 370)}
	six := packet{src: "2001:db8:1::12", dst: "2001:db8::80", proto: 6, ttl: 64, payload: bytes.Repeat([]byte("six!"), 365)}
	for name, c := range map[string]struct {
		in   []byte
		ip   packet
		mtu  int
		told bool
	}{
		"onto a tree":            {frame(four.ip()), four, 1496, true},
		"IPv6 onto a tree":       {frame(six.ip()), six, 1496, true},
		"inside a tree":          {frame(four.ip(), entry(100, 0, true, 50)), four, 1496, true},
		"IPv6 inside a tree":     {frame(six.ip(), entry(100, 0, true, 50)), six, 1496, true},
		"at the end of a tree":   {frame(four.ip(), entry(101, 0, true, 50)), four, 1400, true},
		"may be fragmented":      {in: frame(packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 6, ttl: 64, payload: four.payload}.ip())},
		"below another label":    {in: frame(four.ip(), entry(100, 0, false, 50), entry(7, 0, true, 50))},
		"no IP behind its label": {in: frame(bytes.Repeat([]byte{0xff}, 1500), entry(100, 0, true, 50))},
	} {
		t.Run(name, func(t *testing.T) {
			verdict, out := uint32(0), []byte(nil)
			// So many are told each second, and no more: another one may have to wait.
			testnet.Eventually(t, 5*time.Second, func() bool {
				verdict, out = give(t, f.objects.FastCore, c.in)
				return verdict != pass || !c.told
			}, "an answer")
			if !c.told {
				if verdict != pass || !bytes.Equal(out, c.in) {
					t.Errorf("verdict %d, want it left as it is", verdict)
				}
				return
			}
			if verdict != redirect || !bytes.Equal(out[:12], slices.Concat(net.HardwareAddr{2, 0, 0, 0, 9, 9}, here)) {
				t.Fatalf("verdict %d, %x", verdict, out[:14])
			}
			if netip.MustParseAddr(c.ip.src).Is4() {
				checkError(t, out, c.ip, 3, 4, uint32(c.mtu))
			} else {
				checkError(t, out, c.ip, 2, 0, uint32(c.mtu))
			}
		})
	}
	got, err := f.Counters()
	if err != nil || got.Told != 5 || got.TooLong < 8 || got.Malformed > 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// checkError checks the ICMP error that a packet was answered by, of either family; what is behind its checksum is rest.
func checkError(t *testing.T, out []byte, p packet, kind, code byte, rest uint32) {
	t.Helper()
	ip, about, src := out[14:], p.ip(), netip.MustParseAddr(p.src)
	var from, to netip.Addr
	var pseudo, body []byte
	if src.Is4() {
		if proto := binary.BigEndian.Uint16(out[12:]); proto != 0x0800 || len(ip) != 56 || ip[0] != 0x45 || ip[9] != 1 || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) || onesSum(ip[:20]) != 0xffff {
			t.Fatalf("protocol %#x, %x", proto, ip)
		}
		from, to, body, about = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:])), ip[20:], about[:28]
	} else {
		if proto := binary.BigEndian.Uint16(out[12:]); proto != 0x86dd || len(ip) != 96 || ip[0] != 0x60 || ip[6] != 58 || int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 {
			t.Fatalf("protocol %#x, %x", proto, ip)
		}
		from, to, body, about = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:])), ip[40:], about[:48]
		pseudo = slices.Concat(ip[8:40], []byte{0, 0, 0, byte(len(ip) - 40), 0, 0, 0, 58})
	}
	if sum := onesSum(append(pseudo, body...)); sum != 0xffff {
		t.Errorf("sum %#x", sum)
	}
	if self := map[bool]netip.Addr{true: self4, false: self6}[src.Is4()]; from != self || to != src {
		t.Errorf("from %v to %v", from, to)
	}
	if body[0] != kind || body[1] != code || binary.BigEndian.Uint32(body[4:]) != rest {
		t.Errorf("type %d code %d %#x, want type %d code %d %#x", body[0], body[1], body[4:8], kind, code, rest)
	}
	if !bytes.Equal(body[8:], about) {
		t.Errorf("quotes %x", body[8:])
	}
}
