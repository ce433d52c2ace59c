package fastpath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// Flags of TCP.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// segment is a TCP header from port 1234 to 80, with options, and data behind it.
func segment(flags byte, seq, ackNo uint32, options int, data string) []byte {
	b := binary.BigEndian.AppendUint16(nil, 1234)
	b = binary.BigEndian.AppendUint16(b, 80)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint32(b, ackNo)
	b = append(b, byte(20+options)<<2, flags, 0xff, 0xff, 0, 0, 0, 0)
	return append(append(b, bytes.Repeat([]byte{1}, options)...), data...)
}

// refuses is nobody's plan of both VIPs, and what is done then.
func refuses(t testing.TB, how vips.Refusal) State {
	p := plan(t, nil)
	return State{VIPs: map[netip.Addr]*steer.Plan{vip4: p, vip6: p}, Refuse: map[netip.Addr]vips.Refusal{vip4: how, vip6: how}}
}

// answer is what a frame is answered by; nil: it is dropped. So many errors are sent each second, and no more: another one may have to wait.
func answer(t *testing.T, f *Fastpath, in []byte, want bool) (out []byte) {
	t.Helper()
	testnet.Eventually(t, 5*time.Second, func() bool {
		verdict, after := give(t, f.objects.FastEdge, in)
		switch {
		case verdict == redirect:
			out = after
		case verdict != drop || !bytes.Equal(after, in):
			t.Fatalf("verdict %d, %x", verdict, after)
		}
		return out != nil || !want
	}, "an answer")
	if out != nil && !bytes.Equal(out[:12], slices.Concat(net.HardwareAddr{2, 0, 0, 0, 9, 9}, here)) {
		t.Errorf("goes to %x", out[:12])
	}
	return out
}

// checkReset checks the reset that a segment was answered by.
func checkReset(t *testing.T, out []byte, p packet, seq, ackNo uint32, flags byte) {
	t.Helper()
	want := packet{src: p.dst, dst: p.src, proto: 6, ttl: 64, fragment: dontFragment, payload: make([]byte, 20)}
	binary.BigEndian.PutUint16(want.payload, 80)
	binary.BigEndian.PutUint16(want.payload[2:], 1234)
	binary.BigEndian.PutUint32(want.payload[4:], seq)
	binary.BigEndian.PutUint32(want.payload[8:], ackNo)
	want.payload[12], want.payload[13] = 0x50, flags
	src, dst := netip.MustParseAddr(want.src), netip.MustParseAddr(want.dst)
	pseudo := slices.Concat(src.AsSlice(), dst.AsSlice(), []byte{0, 6, 0, 20}, want.payload)
	binary.BigEndian.PutUint16(want.payload[16:], ^onesSum(pseudo))
	if got := out[14:]; !bytes.Equal(got, want.ip()) {
		t.Errorf("answered by\n %x, want\n %x", got, want.ip())
	}
}

// TestNetNobodyIsRefused: who is served by nobody gets the answer that the service wants, and nothing is answered that must not be.
func TestNetNobodyIsRefused(t *testing.T) {
	f := open(t)
	four := packet{src: "10.1.0.12", dst: vip4.String(), ttl: 64}
	six := packet{src: "2001:db8:1::12", dst: vip6.String(), ttl: 64}
	with := func(p packet, proto byte, payload []byte) packet {
		p.proto, p.payload = proto, payload
		return p
	}
	whole := func(p packet, fragment uint16) packet { p.fragment = fragment; return p }
	from := func(p packet, src string) packet { p.src = src; return p }
	of := map[string][2]packet{
		"SYN with options": {with(four, 6, segment(syn, 4e9, 0, 20, "")), with(six, 6, segment(syn, 4e9, 0, 20, ""))},
		"SYN with data":    {with(four, 6, segment(syn, 1<<32-1, 0, 0, "early")), with(six, 6, segment(syn, 1<<32-1, 0, 0, "early"))},
		"ACK":              {with(four, 6, segment(ack, 7, 9, 0, "")), with(six, 6, segment(ack, 7, 9, 0, ""))},
		"FIN with data":    {with(four, 6, segment(fin|psh, 100, 9, 12, "the end")), with(six, 6, segment(fin|psh, 100, 9, 12, "the end"))},
		"UDP":              {with(four, 17, make([]byte, 8)), with(six, 17, make([]byte, 8))},
		"long UDP":         {with(four, 17, make([]byte, 1400)), with(six, 17, make([]byte, 1400))},
		"echo":             {with(four, 1, []byte{8, 0, 0, 0, 0, 1, 0, 1}), with(six, 58, []byte{128, 0, 0, 0, 0, 1, 0, 1})},
		"SCTP":             {with(four, 132, make([]byte, 12)), with(six, 132, make([]byte, 12))},
		"first fragment":   {whole(with(four, 6, segment(syn, 1, 0, 0, "")), 0x2000), with(six, 44, make([]byte, 40))},
		"later fragment":   {whole(with(four, 17, make([]byte, 40)), 5), with(six, 44, make([]byte, 40))},
		"RST":              {with(four, 6, segment(rst, 1, 0, 0, "")), with(six, 6, segment(rst|ack, 1, 2, 0, ""))},
		"ICMP error":       {with(four, 1, append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, four.ip()...)), with(six, 58, append([]byte{1, 3, 0, 0, 0, 0, 0, 0}, six.ip()...))},
		"echo reply":       {with(four, 1, make([]byte, 8)), with(six, 58, []byte{129, 0, 0, 0, 0, 0, 0, 0})},
		"multicast source": {from(with(four, 17, make([]byte, 8)), "224.0.0.1"), from(with(six, 17, make([]byte, 8)), "ff02::1")},
		"no source":        {from(with(four, 17, make([]byte, 8)), "0.0.0.0"), from(with(six, 17, make([]byte, 8)), "::")},
		"broadcast source": {from(with(four, 6, segment(syn, 1, 0, 0, "")), "255.255.255.255"), from(with(six, 6, segment(syn, 1, 0, 0, "")), "::1")},
		"half a segment":   {with(four, 6, segment(syn, 1, 0, 0, "")[:14]), with(six, 6, segment(syn, 1, 0, 0, "")[:14])},
		"longer header":    {with(four, 6, segment(syn, 1, 0, 0, "")), with(six, 6, segment(syn, 1, 0, 0, ""))},
		"short UDP":        {with(four, 17, make([]byte, 7)), with(six, 17, make([]byte, 7))},
	}
	for _, p := range of["longer header"] {
		p.payload[12] = 0x60 // than the packet is
	}
	type reset struct {
		seq, ack uint32
		flags    byte
	}
	type codes [2]byte // of unreachable, by family
	port, host := codes{3, 4}, codes{1, 3}
	for name, c := range map[string]struct {
		reset  *reset // by Reset; nil: as by Unreachable
		error4 *codes // of IPv4; nil: dropped
		error6 *codes
	}{
		"SYN with options": {reset: &reset{0, 4e9 + 1, rst | ack}, error4: &port, error6: &port},
		"SYN with data":    {reset: &reset{0, 5, rst | ack}, error4: &port, error6: &port},
		"ACK":              {reset: &reset{9, 0, rst}, error4: &port, error6: &port},
		"FIN with data":    {reset: &reset{0, 108, rst | ack}, error4: &port, error6: &port},
		"UDP":              {error4: &port, error6: &port},
		"long UDP":         {error4: &port, error6: &port},
		"echo":             {error4: &host, error6: &host},
		"SCTP":             {error4: &host, error6: &host},
		"first fragment":   {error4: &port},
		"later fragment":   {}, "RST": {}, "ICMP error": {}, "echo reply": {}, "multicast source": {}, "no source": {}, "broadcast source": {},
		"half a segment": {}, "short UDP": {},
		"longer header": {error4: &port, error6: &port},
	} {
		for i, p := range of[name] {
			t.Run(fmt.Sprintf("%s of IPv%d", name, []int{4, 6}[i]), func(t *testing.T) {
				want, kind := []*codes{c.error4, c.error6}[i], []byte{3, 1}[i]
				in := frame(p.ip())
				set(t, f, refuses(t, vips.Drop))
				if out := answer(t, f, in, false); out != nil {
					t.Errorf("what is to be dropped is answered by %x", out)
				}
				set(t, f, refuses(t, vips.Unreachable))
				if out := answer(t, f, in, want != nil); want != nil {
					checkError(t, out, p, kind, want[i], 0)
				} else if out != nil {
					t.Errorf("answered by %x", out)
				}
				set(t, f, refuses(t, vips.Reset))
				switch out := answer(t, f, in, c.reset != nil || want != nil && name != "longer header"); {
				case c.reset != nil:
					checkReset(t, out, p, c.reset.seq, c.reset.ack, c.reset.flags)
				case want != nil && name != "longer header":
					checkError(t, out, p, kind, want[i], 0)
				case out != nil:
					t.Errorf("answered by %x", out)
				}
			})
		}
	}
	got, err := f.Counters()
	if err != nil || got.Reset != 8 || got.Unreachable != 28 || got.Nobody < 3*uint64(2*len(of)) || got.Malformed+got.Kernel > 0 {
		t.Errorf("%+v, %v", got, err)
	}
	in := frame(of["ACK"][0].ip())
	in[14+16] = 10 // a VIP of nobody
	if verdict, _ := give(t, f.objects.FastEdge, in); verdict != pass {
		t.Errorf("another address: verdict %d", verdict)
	}
}

// An owner whose tree leads nowhere is nobody, and what is done then changes by itself, goes with the VIP and outlives the process.
func TestNetRefusalsComeAndGo(t *testing.T) {
	n := testnet.New(t)
	o := Options{Owners: 1 << 8, Labels: 1 << 8, Hops: 1 << 8, Self4: self4, Pins: n.BPFFS() + "/fastpath"}
	f, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	p := plan(t, map[steer.Owner]string{1: "0.0.0.0/0.0.0.0"})
	s := refuses(t, vips.Reset)
	s.VIPs[vip4], s.VIPs[vip6], s.Trees = p, p, map[steer.Owner][]Hop{1: nil}
	set(t, f, s)
	four := frame(packet{src: "10.1.0.12", dst: vip4.String(), ttl: 64, proto: 6, payload: segment(syn, 1, 0, 0, "")}.ip())
	six := frame(packet{src: "2001:db8:1::12", dst: vip6.String(), ttl: 64, proto: 6, payload: segment(syn, 1, 0, 0, "")}.ip())
	want := func(when string, verdicts ...uint32) {
		t.Helper()
		for i, in := range [][]byte{four, six} {
			if got, _ := give(t, f.objects.FastEdge, in); got != verdicts[i] {
				t.Errorf("%s: verdict %d, want %d", when, got, verdicts[i])
			}
		}
	}
	want("set", redirect, redirect)
	if err := f.Close(true); err != nil {
		t.Fatal(err)
	}
	if f, err = Open(o); err != nil {
		t.Fatal(err)
	}
	defer f.Close(false)
	want("another process", redirect, redirect)
	s.Refuse[vip6] = vips.Drop
	set(t, f, s)
	want("one is to be dropped", redirect, drop)
	delete(s.VIPs, vip4)
	s.Refuse[vip6] = vips.Reset
	set(t, f, s)
	want("the other is gone", pass, redirect)
	set(t, f, State{})
	var key [16]byte
	var value fastpathFastService
	if f.objects.FastServices.Iterate().Next(&key, &value) {
		t.Errorf("left of services that are gone: %v %v", key, value)
	}
}

// TestNetUsersAreRefusedAtOnce: real connection attempts and datagrams end with their first packet, connections that are open outlive errors
// but not a reset. An error that is back while the user's kernel is still in connect(), as on one machine it may be, is lost: the next
// packet's counts then.
func TestNetUsersAreRefusedAtOnce(t *testing.T) {
	c := newChain(t)
	c.serve(vip4.String() + ":80")
	served := plan(t, map[steer.Owner]string{1: "0.0.0.0/0.0.0.0"})
	tree := map[steer.Owner][]Hop{1: {c.hop(c.edge, c.core, Label, 100)}}
	serves := State{VIPs: map[netip.Addr]*steer.Plan{vip4: served}, Trees: tree}
	count := func() Counters {
		got, err := c.of[c.edge].Counters()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	var open net.Conn
	c.do(c.user, func() (err error) {
		open, err = net.DialTimeout("tcp", vip4.String()+":80", 5*time.Second)
		return err
	})
	defer open.Close()
	if err := open.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, how := range []vips.Refusal{vips.Unreachable, vips.Reset} {
		set(t, c.of[c.edge], refuses(t, how))
		for _, vip := range []netip.Addr{vip4, vip6} {
			before := count()
			err := c.user.Do(func() error {
				_, err := net.DialTimeout("tcp", netip.AddrPortFrom(vip, 80).String(), 20*time.Second)
				return err
			})
			after := count()
			resets, unreachable := after.Reset-before.Reset, after.Unreachable-before.Unreachable
			is := how == vips.Reset && resets == 1 && unreachable == 0 || how == vips.Unreachable && resets == 0 && (unreachable == 1 || unreachable == 2)
			if !errors.Is(err, unix.ECONNREFUSED) || !is || after.Nobody-before.Nobody != resets+unreachable {
				t.Errorf("%v, refusal %d: %v, counted %+v after %+v", vip, how, err, after, before)
			}
			err = c.user.Do(func() error {
				conn, err := net.Dial("udp", netip.AddrPortFrom(vip, 53).String())
				if err != nil {
					return err
				}
				defer conn.Close()
				if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
					return err
				}
				if _, err = conn.Write([]byte("?")); err == nil {
					_, err = conn.Read(make([]byte, 1))
				}
				return err
			})
			if !errors.Is(err, unix.ECONNREFUSED) || count().Unreachable == after.Unreachable {
				t.Errorf("UDP to %v, refusal %d: %v", vip, how, err)
			}
		}
		if how == vips.Unreachable {
			before := count().Unreachable
			if _, err := io.WriteString(open, "x"); err != nil {
				t.Fatal(err)
			}
			testnet.Eventually(t, 5*time.Second, func() bool { return count().Unreachable > before }, "an error about what is open")
			set(t, c.of[c.edge], serves)
			if _, err := io.WriteString(open, "y"); err != nil {
				t.Errorf("what was open has ended by an error: %v", err)
			}
		}
	}
	if _, err := io.WriteString(open, "z"); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("what was open ends by %v", err)
	}
}
