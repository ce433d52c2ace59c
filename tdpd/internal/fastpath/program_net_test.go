package fastpath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
)

// What XDP programs return.
const (
	drop     = 1
	pass     = 2
	redirect = 4
)

var (
	vip4  = netip.MustParseAddr("192.0.2.80")
	vip6  = netip.MustParseAddr("2001:db8::80")
	self4 = netip.MustParseAddr("10.0.0.7")
	self6 = netip.MustParseAddr("2001:db8::7")
	here  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	next  = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// open loads the programs with the capabilities that the unit gives.
func open(t testing.TB) *Fastpath { return openWith(t, Options{}) }

// openWith is open with more options than sizes and addresses.
func openWith(t testing.TB, o Options) *Fastpath {
	t.Helper()
	o.Owners, o.Labels, o.Hops, o.Self4, o.Self6, o.Sources = 1<<12, 1<<10, 1<<12, self4, self6, friends
	var f *Fastpath
	if err := testnet.WithCapabilities(func() (err error) {
		f, err = Open(o)
		return err
	}, unix.CAP_BPF, unix.CAP_NET_ADMIN); err != nil {
		if refused := (*ebpf.VerifierError)(nil); errors.As(err, &refused) {
			t.Fatalf("%v: %+v", err, refused)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(false) })
	return f
}

func plan(t testing.TB, owners map[steer.Owner]string) *steer.Plan {
	t.Helper()
	var claims []steer.Claim
	for o, p := range owners {
		claims = append(claims, steer.Claim{Owner: o, Set: portion.Set{Permit: []portion.Portion{portion.MustParse(p)}}})
	}
	p, err := steer.Compile(claims)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func set(t testing.TB, f *Fastpath, s State) {
	t.Helper()
	if err := f.Set(s); err != nil {
		t.Fatal(err)
	}
}

// halves gives users with an even last byte to owner 1, the others to owner 2, in both families, and no tree to owner 3.
func halves(t testing.TB) State {
	p := plan(t, map[steer.Owner]string{1: "0.0.0.0/0.0.0.1", 2: "0.0.0.1/0.0.0.1"})
	return State{
		VIPs: map[netip.Addr]*steer.Plan{vip4: p, vip6: p},
		Trees: map[steer.Owner][]Hop{
			1: {{Interface: 7, How: Label, Label: 100, To: next, From: here, MTU: 1500}},
			2: {{Interface: 8, How: Bare, To: next, From: here, MTU: 1500}},
		},
	}
}

// give gives a frame to a program and returns its verdict and the frame after it.
func give(t testing.TB, p *ebpf.Program, frame []byte) (uint32, []byte) {
	t.Helper()
	o := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256)}
	verdict, err := p.Run(o)
	if err != nil {
		t.Fatal(err)
	}
	return verdict, o.DataOut
}

// frame is an Ethernet frame to this router with labels, outermost first, over an IP packet of either family.
func frame(ip []byte, labels ...uint32) []byte {
	b := slices.Concat(here, net.HardwareAddr{2, 0, 0, 0, 9, 9})
	proto := uint16(0x0800)
	switch {
	case len(labels) > 0:
		proto = 0x8847
	case ip[0]>>4 == 6:
		proto = 0x86dd
	}
	b = binary.BigEndian.AppendUint16(b, proto)
	for _, l := range labels {
		b = binary.BigEndian.AppendUint32(b, l)
	}
	return append(b, ip...)
}

// entry is a label stack entry.
func entry(label, tc uint32, bottom bool, ttl uint32) uint32 {
	e := label<<12 | tc<<9 | ttl
	if bottom {
		e |= 1 << 8
	}
	return e
}

type packet struct {
	src, dst string
	proto    byte
	tos, ttl byte
	fragment uint16
	payload  []byte
}

// ip is the packet's bytes, an IPv4 checksum right.
func (p packet) ip() []byte {
	src, dst := netip.MustParseAddr(p.src), netip.MustParseAddr(p.dst)
	if src.Is6() {
		b := []byte{0x60 | p.tos>>4, p.tos << 4, 0, 0, 0, 0, p.proto, p.ttl}
		binary.BigEndian.PutUint16(b[4:], uint16(len(p.payload)))
		return slices.Concat(b, src.AsSlice(), dst.AsSlice(), p.payload)
	}
	b := make([]byte, 12, 20+len(p.payload))
	b[0], b[1], b[8], b[9] = 0x45, p.tos, p.ttl, p.proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(p.payload)))
	binary.BigEndian.PutUint16(b[6:], p.fragment)
	b = slices.Concat(b, src.AsSlice(), dst.AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum>>16+sum))
	return append(b, p.payload...)
}

// aged is the packet with another TTL.
func (p packet) aged(ttl byte) packet { p.ttl = ttl; return p }

// sent is the frame as it leaves by a hop.
func sent(ip []byte, labels ...uint32) []byte {
	b := frame(ip, labels...)
	copy(b, slices.Concat(next, here))
	return b
}

func TestNetUsersGetLabels(t *testing.T) {
	f := open(t)
	set(t, f, halves(t))
	udp := make([]byte, 64)
	even := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 17, tos: 0xb8, ttl: 64, payload: udp}
	odd := packet{src: "10.1.0.13", dst: "192.0.2.80", proto: 17, ttl: 64, payload: udp}
	six := packet{src: "2001:db8:1::12", dst: "2001:db8::80", proto: 17, tos: 0xb8, ttl: 64, payload: udp}
	for n := 2; halves(t).VIPs[vip6].Lookup(steer.Standin(netip.MustParseAddr(six.src))) != 1; n++ {
		six.src = fmt.Sprintf("2001:db8:%d::12", n)
	}
	quoted := func(user string) []byte { // an ICMP error of a router about an answer to the user
		return append([]byte{3, 4, 0, 0, 0, 0, 0, 0}, packet{src: "192.0.2.80", dst: user, proto: 6, ttl: 60, payload: udp}.ip()...)
	}
	icmp := packet{src: "10.9.0.13", dst: "192.0.2.80", proto: 1, ttl: 64, payload: quoted("10.1.0.12")}
	later := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 17, ttl: 64, fragment: 185, payload: udp}
	long := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 17, ttl: 64, payload: make([]byte, 1477)} // 1,497 bytes
	fits := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 17, ttl: 64, payload: make([]byte, 1476)}
	for name, c := range map[string]struct {
		in      []byte
		verdict uint32
		out     []byte // nil: as it came
	}{
		"a label, TTL and class copied":     {frame(even.ip()), redirect, sent(even.aged(63).ip(), entry(100, 5, true, 63))},
		"a next hop that wants none":        {frame(odd.ip()), redirect, sent(odd.aged(63).ip())},
		"IPv6":                              {frame(six.ip()), redirect, sent(six.aged(63).ip(), entry(100, 5, true, 63))},
		"an ICMP error goes by the user":    {frame(icmp.ip()), redirect, sent(icmp.aged(63).ip(), entry(100, 0, true, 63))},
		"a later fragment follows":          {frame(later.ip()), redirect, sent(later.aged(63).ip(), entry(100, 0, true, 63))},
		"as long as the link takes":         {frame(fits.ip()), redirect, sent(fits.aged(63).ip(), entry(100, 0, true, 63))},
		"longer: the kernel says so":        {frame(long.ip()), pass, nil},
		"a TTL that ends: the kernel does":  {frame(even.aged(1).ip()), pass, nil},
		"another address":                   {frame(packet{src: "10.1.0.12", dst: "192.0.2.81", proto: 17, ttl: 64, payload: udp}.ip()), pass, nil},
		"another address of IPv6":           {frame(packet{src: "2001:db8::1", dst: "2001:db8::81", proto: 17, ttl: 64, payload: udp}.ip()), pass, nil},
		"half a header":                     {frame(even.ip()[:16]), pass, nil},
		"ARP":                               {append(slices.Concat(here, next, []byte{8, 6}), udp...), pass, nil},
		"labelled by somebody outside":      {frame(even.ip(), entry(100, 0, true, 64)), drop, nil},
		"the same with a label that is not": {frame(even.ip(), entry(999, 0, true, 64)), drop, nil},
	} {
		t.Run(name, func(t *testing.T) {
			verdict, out := give(t, f.objects.FastEdge, c.in)
			want := c.out
			if want == nil {
				want = c.in
			}
			if verdict != c.verdict || !bytes.Equal(out, want) {
				t.Errorf("verdict %d, want %d\n got %x\nwant %x", verdict, c.verdict, out, want)
			}
		})
	}
	got, err := f.Counters()
	if want := (Counters{Pushed: 5, Bare: 1, Kernel: 2, TooLong: 1, Expiring: 1, Outsider: 2}); err != nil || got != want {
		t.Errorf("counters %+v, %v, want %+v", got, err, want)
	}
	traffic, err := f.Traffic(1)
	if want := (Traffic{5, 84 + 104 + 112 + 84 + 1496}); err != nil || traffic != want {
		t.Errorf("traffic %+v, %v, want %+v", traffic, err, want)
	}
}

func TestNetLabelsAreSwappedAndPopped(t *testing.T) {
	f := open(t)
	set(t, f, State{Labels: map[uint32][]Hop{
		100: {{Interface: 7, How: Label, Label: 200, To: next, From: here, MTU: 1504}},
		101: {{Interface: 7, How: Bare, To: next, From: here, MTU: 1500}},
		102: {{How: Kernel}},
		103: nil,
	}})
	four := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 17, ttl: 60, payload: make([]byte, 40)}
	six := packet{src: "2001:db8:1::12", dst: "2001:db8::80", proto: 17, ttl: 60, payload: make([]byte, 40)}
	long := packet{src: "10.1.0.12", dst: "192.0.2.80", proto: 17, ttl: 60, payload: make([]byte, 1481)}
	for name, c := range map[string]struct {
		in      []byte
		verdict uint32
		out     []byte
	}{
		"swap":                            {frame(four.ip(), entry(100, 5, true, 50)), redirect, sent(four.ip(), entry(200, 5, true, 49))},
		"swap the upper of two":           {frame(four.ip(), entry(100, 5, false, 50), entry(7, 1, true, 9)), redirect, sent(four.ip(), entry(200, 5, false, 49), entry(7, 1, true, 9))},
		"pop":                             {frame(four.ip(), entry(101, 5, true, 50)), redirect, sent(four.aged(49).ip())},
		"pop IPv6":                        {frame(six.ip(), entry(101, 5, true, 50)), redirect, sent(six.aged(49).ip())},
		"pop the upper of two":            {frame(four.ip(), entry(101, 5, false, 50), entry(7, 1, true, 64)), redirect, sent(four.ip(), entry(7, 1, true, 49))},
		"what is below has a lower TTL":   {frame(four.ip(), entry(101, 5, false, 50), entry(7, 1, true, 9)), redirect, sent(four.ip(), entry(7, 1, true, 9))},
		"pop what is too long":            {frame(long.ip(), entry(101, 5, true, 50)), pass, nil},
		"swap what is not":                {frame(long.ip()[:1500], entry(100, 0, true, 50)), redirect, sent(long.ip()[:1500], entry(200, 0, true, 49))},
		"a TTL that ends":                 {frame(four.ip(), entry(100, 0, true, 1)), pass, nil},
		"a label that the kernel may":     {frame(four.ip(), entry(999, 0, true, 50)), pass, nil},
		"a label for the kernel":          {frame(four.ip(), entry(102, 0, true, 50)), pass, nil},
		"a label that leads nowhere":      {frame(four.ip(), entry(103, 0, true, 50)), drop, nil},
		"pop what is not IP":              {frame([]byte("this is no IP packet, though a long one"), entry(101, 0, true, 50)), drop, nil},
		"pop half a header":               {frame(four.ip()[:19], entry(101, 0, true, 50)), drop, nil},
		"pop half a header of IPv6":       {frame(six.ip()[:39], entry(101, 0, true, 50)), drop, nil},
		"half a label":                    {frame(four.ip(), entry(100, 0, true, 50))[:16], drop, nil},
		"nobody's VIP here":               {frame(four.ip()), pass, nil},
		"a label with nothing in it swap": {frame(nil, entry(100, 0, true, 50)), redirect, sent(nil, entry(200, 0, true, 49))},
	} {
		t.Run(name, func(t *testing.T) {
			verdict, out := give(t, f.objects.FastCore, c.in)
			want := c.out
			if want == nil {
				want = c.in
			}
			if verdict != c.verdict || !bytes.Equal(out, want) {
				t.Errorf("verdict %d, want %d\n got %x\nwant %x", verdict, c.verdict, out, want)
			}
		})
	}
}

// A tree with two next hops sends each user by one of them, and all by both; others come in its place in one step.
func TestNetHopsShareUsers(t *testing.T) {
	f := open(t)
	s := halves(t)
	by := func(label uint32) Hop {
		return Hop{Interface: 7, How: Label, Label: label, To: next, From: here, MTU: 1500}
	}
	later := time.Now()
	for _, labels := range [][]uint32{{100, 101}, {102}, {103, 104, 105}, {100, 101}} {
		for range 2 { // programs that ran then have ended
			later = later.Add(grace)
			f.hops.settle(later)
		}
		s.Trees[1] = nil
		for _, l := range labels {
			s.Trees[1] = append(s.Trees[1], by(l))
		}
		set(t, f, s)
		seen := map[uint32]int{}
		for user := range 512 {
			in := frame(packet{src: netip.AddrFrom4([4]byte{10, 1, byte(user >> 7), byte(2 * user)}).String(), dst: "192.0.2.80", proto: 17, ttl: 64, payload: make([]byte, 20)}.ip())
			_, out := give(t, f.objects.FastEdge, in)
			_, again := give(t, f.objects.FastEdge, in)
			if !bytes.Equal(out, again) {
				t.Fatalf("user %d goes two ways", user)
			}
			seen[binary.BigEndian.Uint32(out[14:])>>12]++
		}
		for _, l := range labels {
			if n := seen[l]; n < 512/len(labels)/2 {
				t.Errorf("label %d of %v has %d users of 512", l, labels, n)
			}
			delete(seen, l)
		}
		if len(seen) > 0 {
			t.Errorf("beside %v users have %v", labels, seen)
		}
	}
	if n := f.hops.next; n > 7 {
		t.Errorf("%d places for hops of which at most 4 are in use, and 3 were", n)
	}
}

func TestNetWhatIsNotWantedGoes(t *testing.T) {
	f := open(t)
	s := halves(t)
	set(t, f, s)
	s.Labels = map[uint32][]Hop{100: {{Interface: 7, How: Bare, To: next, From: here, MTU: 1500}}}
	delete(s.VIPs, vip6)
	delete(s.Trees, 2)
	set(t, f, s)
	odd := frame(packet{src: "10.1.0.13", dst: "192.0.2.80", proto: 17, ttl: 64, payload: make([]byte, 20)}.ip())
	six := frame(packet{src: "2001:db8:1::12", dst: "2001:db8::80", proto: 17, ttl: 64, payload: make([]byte, 20)}.ip())
	if verdict, _ := give(t, f.objects.FastEdge, odd); verdict != drop {
		t.Errorf("a user whose owner has no tree: %d", verdict)
	}
	if verdict, _ := give(t, f.objects.FastEdge, six); verdict != pass {
		t.Errorf("a VIP that is gone: %d", verdict)
	}
	set(t, f, State{})
	labelled := frame(packet{src: "10.1.0.13", dst: "192.0.2.80", proto: 17, ttl: 64}.ip(), entry(100, 0, true, 9))
	for _, in := range [][]byte{odd, labelled} {
		if verdict, _ := give(t, f.objects.FastCore, in); verdict != pass {
			t.Errorf("of nothing: %d", verdict)
		}
	}
	for _, wrong := range []State{
		{Trees: map[steer.Owner][]Hop{1 << 12: {{How: Kernel}}}},
		{Trees: map[steer.Owner][]Hop{0: {{How: Kernel}}}},
		{Trees: map[steer.Owner][]Hop{1: {{Interface: 7, How: Bare, To: next, MTU: 1500}}}},
		{Labels: map[uint32][]Hop{15: {{How: Kernel}}}},
		{Labels: map[uint32][]Hop{1 << 20: {{How: Kernel}}}},
		{Labels: map[uint32][]Hop{16: {{Interface: 7, How: Label, Label: 1 << 20, To: next, From: here, MTU: 1500}}}},
		{Labels: map[uint32][]Hop{16: {{Interface: 7, How: Label, To: next, From: here, MTU: 1 << 16}}}},
		{Labels: map[uint32][]Hop{16: {{How: Label, To: next, From: here, MTU: 1500}}}},
	} {
		if err := f.Set(wrong); err == nil {
			t.Errorf("%+v was taken", wrong)
		}
	}
}
