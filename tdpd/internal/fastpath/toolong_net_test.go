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
			if src := netip.MustParseAddr(c.ip.src); src.Is4() {
				checkTold4(t, out, c.ip, c.mtu)
			} else {
				checkTold6(t, out, c.ip, c.mtu)
			}
		})
	}
	got, err := f.Counters()
	if err != nil || got.Told != 5 || got.TooLong < 8 || got.Malformed > 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func checkTold4(t *testing.T, out []byte, p packet, mtu int) {
	t.Helper()
	ip := out[14:]
	if proto := binary.BigEndian.Uint16(out[12:]); proto != 0x0800 || len(ip) != 60 || ip[0] != 0x45 || ip[9] != 1 || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) {
		t.Fatalf("protocol %#x, %x", proto, ip)
	}
	if onesSum(ip[:20]) != 0xffff || onesSum(ip[20:]) != 0xffff {
		t.Errorf("sums %#x and %#x", onesSum(ip[:20]), onesSum(ip[20:]))
	}
	from, to := netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
	if from != self4 || to.String() != p.src || ip[20] != 3 || ip[21] != 4 || int(binary.BigEndian.Uint16(ip[26:])) != mtu {
		t.Errorf("from %v to %v: type %d code %d MTU %d, want %d", from, to, ip[20], ip[21], binary.BigEndian.Uint16(ip[26:]), mtu)
	}
	if !bytes.Equal(ip[28:], p.ip()[:32]) {
		t.Errorf("quotes %x", ip[28:])
	}
}

func checkTold6(t *testing.T, out []byte, p packet, mtu int) {
	t.Helper()
	ip := out[14:]
	if proto := binary.BigEndian.Uint16(out[12:]); proto != 0x86dd || len(ip) != 96 || ip[0] != 0x60 || ip[6] != 58 || int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-40 {
		t.Fatalf("protocol %#x, %x", proto, ip)
	}
	pseudo := slices.Concat(ip[8:40], []byte{0, 0, 0, byte(len(ip) - 40), 0, 0, 0, 58}, ip[40:])
	if onesSum(pseudo) != 0xffff {
		t.Errorf("sum %#x", onesSum(pseudo))
	}
	from, to := netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
	if from != self6 || to.String() != p.src || ip[40] != 2 || ip[41] != 0 || int(binary.BigEndian.Uint32(ip[44:])) != mtu {
		t.Errorf("from %v to %v: type %d code %d MTU %d, want %d", from, to, ip[40], ip[41], binary.BigEndian.Uint32(ip[44:]), mtu)
	}
	if !bytes.Equal(ip[48:], p.ip()[:48]) {
		t.Errorf("quotes %x", ip[48:])
	}
}
