package marking

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// What tc programs return.
const (
	next = -1
	drop = 2
)

func open(t *testing.T) *program {
	t.Helper()
	var p *program
	// With the capabilities that a unit gives.
	err := testnet.WithCapabilities(func() (err error) {
		p, err = openProgram(config)
		return err
	}, unix.CAP_BPF, unix.CAP_NET_ADMIN)
	if err != nil {
		if refused := (*ebpf.VerifierError)(nil); errors.As(err, &refused) {
			t.Fatalf("%v: %+v", err, refused)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { p.close(false) })
	return p
}

// claim gives an owner the users of a portion.
func claim(owner steer.Owner, p string) steer.Claim {
	return steer.Claim{Owner: owner, Set: portion.Set{Permit: []portion.Portion{portion.MustParse(p)}}}
}

// half has two servers for half of all users.
var half = []steer.Claim{claim(1, "0.0.0.0/0.0.0.3"), claim(2, "0.0.0.1/0.0.0.3")}

// skb is the part of struct __sk_buff that a test can set and read.
type skb struct {
	Len, PacketType, Mark uint32
	_                     [45]uint32
}

// give gives a frame with a mark to the program, and returns its verdict and the mark after it. The frame stays as it is.
func give(t *testing.T, p *program, frame []byte, mark uint32) (verdict int32, after uint32) {
	t.Helper()
	var out skb
	o := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64), Context: skb{Mark: mark}, ContextOut: &out}
	got, err := p.objects.MarkUsers.Run(o)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(o.DataOut, frame) {
		t.Errorf("the frame is now %x, was %x", o.DataOut, frame)
	}
	return int32(got), out.Mark
}

// frame is an Ethernet frame to the interface on which the kernel tests programs, whose address is all zeros.
func frame(proto uint16, data ...byte) []byte {
	return append(binary.BigEndian.AppendUint16(append(make([]byte, 6), 2, 0, 0, 0, 9, 9), proto), data...)
}

// ip is a packet of IPv4 or IPv6 with so much behind its header.
func ip(src, dst string, proto byte, payload ...byte) []byte {
	from, to := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	if from.Is6() {
		b := []byte{0x60, 0, 0, 0, 0, byte(len(payload)), proto, 64}
		return frame(0x86dd, slices.Concat(b, from.AsSlice(), to.AsSlice(), payload)...)
	}
	b := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 0, 0, 0, 64, proto, 0, 0}
	return frame(0x800, slices.Concat(b, from.AsSlice(), to.AsSlice(), payload)...)
}

func TestNetUsersAreMarked(t *testing.T) {
	p := open(t)
	quarters, err := steer.Compile([]steer.Claim{claim(1, "0.0.0.0/0.0.0.3"), claim(4095, "0.0.0.1/0.0.0.3")})
	if err != nil {
		t.Fatal(err)
	}
	refused := netip.MustParseAddr("192.0.2.90")
	refused6 := netip.MustParseAddr("2001:db8::90")
	plans := map[netip.Addr]*steer.Plan{vip4: quarters, vip6: quarters, refused: quarters, refused6: quarters}
	nats := steer.Split{netip.MustParsePrefix("10.7.0.0/16")} // their users are told apart by port
	if err := p.vips.Set(plans, map[netip.Addr]vips.Split{vip4: {Prefixes: nats, Plan: quarters}}); err != nil {
		t.Fatal(err)
	}
	for _, list := range []map[netip.Addr]vips.Refusal{{vip4: vips.Reset, vip6: vips.Reset}, {refused: vips.Reset, refused6: vips.Unreachable, vip4: vips.Drop}} {
		if err := p.refuse(list); err != nil {
			t.Fatal(err)
		}
	}
	six := func(owner steer.Owner) string {
		for n := range 1000 {
			user := fmt.Sprintf("2001:db8:%d::12", n)
			if quarters.Lookup(steer.Standin(netip.MustParseAddr(user))) == owner {
				return user
			}
		}
		t.Fatal("no user of owner ", owner)
		return ""
	}
	udp := make([]byte, 40)
	port := func(owner steer.Owner) []byte { // of a flow of an owner's from behind a NAT, and what follows it
		for n := range uint16(1000) {
			if quarters.Lookup(steer.Flow(netip.AddrPortFrom(netip.MustParseAddr("10.7.0.1"), n+1))) == owner {
				return binary.BigEndian.AppendUint16(nil, n+1)
			}
		}
		t.Fatal("no port of owner ", owner)
		return nil
	}
	quoted := func(user string) []byte { // an ICMP error of a router about an answer to the user
		return append([]byte{3, 4, 0, 0, 0, 0, 0, 0}, ip("192.0.2.80", user, 17, udp...)[14:]...)
	}
	quoted6 := func(user string) []byte {
		return append([]byte{2, 0, 0, 0, 0, 0, 0, 0}, ip("2001:db8::80", user, 17, udp...)[14:]...)
	}
	later := ip("10.1.0.12", "192.0.2.80", 1, quoted("10.1.0.13")...)
	later[14+7] = 9 // a fragment's offset
	for name, c := range map[string]struct {
		in      []byte
		before  uint32
		verdict int32
		after   uint32
	}{
		"a user":                               {ip("10.1.0.12", "192.0.2.80", 17, udp...), 0, next, 0x54000001},
		"of the last server":                   {ip("10.1.0.13", "192.0.2.80", 6, udp...), 0, next, 0x54000fff},
		"others' bits stay, ours do not":       {ip("10.1.0.12", "192.0.2.80", 17, udp...), 0x77abcdef, next, 0x54abc001},
		"of nobody":                            {ip("10.1.0.14", "192.0.2.80", 17, udp...), 5, drop, 5},
		"of IPv6":                              {ip(six(4095), "2001:db8::80", 17, udp...), 0, next, 0x54000fff},
		"of nobody, IPv6":                      {ip(six(0), "2001:db8::80", 17, udp...), 0, drop, 0},
		"behind a NAT, by port":                {ip("10.7.0.1", "192.0.2.80", 17, append(port(4095), udp...)...), 0, next, 0x54000fff},
		"behind a NAT, of nobody":              {ip("10.7.0.1", "192.0.2.80", 17, append(port(0), udp...)...), 0, drop, 0},
		"of nobody, to be told":                {ip("10.1.0.14", "192.0.2.90", 17, udp...), 0xffffffff, next, 0x54fff000},
		"of nobody, to be told, IPv6":          {ip(six(0), "2001:db8::90", 17, udp...), 0, next, 0x54000000},
		"an ICMP error goes by the user":       {ip("10.9.9.14", "192.0.2.80", 1, quoted("10.1.0.13")...), 0, next, 0x54000fff},
		"an ICMP error of IPv6":                {ip(six(0), "2001:db8::80", 58, quoted6(six(1))...), 0, next, 0x54000001},
		"half of one goes by its source":       {ip("10.9.9.12", "192.0.2.80", 1, quoted("10.1.0.13")[:20]...), 0, next, 0x54000001},
		"a later fragment of one":              {later, 0, next, 0x54000001},
		"a header alone":                       {ip("10.1.0.12", "192.0.2.80", 17), 0, next, 0x54000001},
		"another address":                      {ip("10.1.0.12", "192.0.2.81", 17, udp...), 6, next, 6},
		"another address of IPv6":              {ip(six(1), "2001:db8::81", 17, udp...), 6, next, 6},
		"what is no IP":                        {frame(0x806, udp...), 6, next, 6},
		"labelled by somebody outside":         {frame(0x8847, append([]byte{0, 6, 0x41, 64}, udp...)...), 0, drop, 0},
		"labelled behind a VLAN tag":           {frame(0x8100, append([]byte{0, 5, 0x88, 0x47, 0, 6, 0x41, 64}, udp...)...), 0, drop, 0},
		"behind a VLAN tag":                    {frame(0x8100, append([]byte{0, 5, 8, 0}, ip("10.1.0.12", "192.0.2.80", 17, udp...)[14:]...)...), 6, next, 6},
		"for another host":                     {append([]byte{2}, ip("10.1.0.14", "192.0.2.80", 17, udp...)[1:]...), 6, next, 6},
		"a user's broadcast is no less a user": {append([]byte{255, 255, 255, 255, 255, 255}, ip("10.1.0.12", "192.0.2.80", 17, udp...)[6:]...), 0, next, 0x54000001},
	} {
		t.Run(name, func(t *testing.T) {
			if verdict, after := give(t, p, c.in, c.before); verdict != c.verdict || after != c.after {
				t.Errorf("verdict %d, mark %#x, want %d and %#x", verdict, after, c.verdict, c.after)
			}
		})
	}
	if got, err := p.counters(); err != nil || got != (Counters{Marked: 11, Nobody: 5, Refused: 2, Outsider: 2}) {
		t.Errorf("counters %+v, %v", got, err)
	}
}
