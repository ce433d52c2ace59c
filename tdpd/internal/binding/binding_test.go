package binding

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/steering"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

func router(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }

// example has everything that a binding may have.
func example(bits int) steering.Binding {
	a := alloc.Allocation{
		Epoch: epoch.Epoch{Term: 3, Number: 7}, Slots: alloc.Slots{By: alloc.Suffix, Bits: bits}, Servers: []string{"s1", "s2"},
		Addresses: []netip.Addr{netip.MustParseAddr("10.3.1.10"), netip.MustParseAddr("10.3.2.10")},
		Fixed:     []portion.Portion{portion.MustParse("198.51.100.0/24")},
	}
	for cell := range a.Cells() {
		a.Owner, a.Standby = append(a.Owner, uint16(cell%2)), append(a.Standby, uint16((cell+1)%2))
	}
	return steering.Binding{
		Service: "web", VIPs: []netip.Addr{netip.MustParseAddr("192.0.2.80"), netip.MustParseAddr("2001:db8::80")}, Voucher: router(1), Sequence: 5,
		Allocation: a, Users: []steering.User{{Address: router(9), Server: "s2"}}, Lifetime: 30 * time.Second, Hold: time.Minute,
		Path: []netip.Addr{router(1), router(2)}, Refuse: steering.Reset, Reactive: true,
		Split: steer.Split{netip.MustParsePrefix("203.0.113.7/32"), netip.MustParsePrefix("2001:db8::/32")},
	}
}

// nobody says that nobody serves.
func nobody() steering.Binding {
	b := example(4)
	b.Allocation, b.Users, b.Nobody, b.Refuse = alloc.Allocation{Epoch: b.Allocation.Epoch}, nil, true, steering.Unreachable
	return b
}

// pins are exceptions alone.
func pins() steering.Binding {
	b := example(4)
	b.UsersOnly, b.Reactive, b.Split = true, false, nil
	b.Others = []steering.Server{{Name: "s0", Address: netip.MustParseAddr("2001:db8::10")}, {Name: "s9", Address: router(7)}}
	b.Users = append(b.Users, steering.User{Address: router(10), Server: "s9"})
	return b
}

var sameAddr = []cmp.Option{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, portion.Portion{}, epoch.Epoch{}), cmpopts.EquateEmpty()}

func TestBothWays(t *testing.T) {
	for name, b := range map[string]steering.Binding{
		"whole":     example(8),
		"large":     example(16),
		"of nobody": nobody(),
		"of some":   pins(),
		"withdrawn": {Service: "web", Voucher: router(1), Sequence: 6, Path: []netip.Addr{router(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := Encode(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, maxPDU := range []int{256, 4096, 65535} {
				var a Assembler
				var whole []byte
				for i, m := range throughWire(t, uint16(maxPDU), Messages(TypeTold, raw, maxPDU)) {
					if whole != nil {
						t.Fatalf("whole before part %d", i+1)
					}
					var err error
					if whole, err = a.Add(m); err != nil {
						t.Fatal(err)
					}
				}
				if !bytes.Equal(whole, raw) {
					t.Fatalf("PDUs of %d: %d bytes of %d", maxPDU, len(whole), len(raw))
				}
			}
			got, err := Decode(raw)
			if diff := cmp.Diff(b, got, sameAddr...); err != nil || diff != "" {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
		})
	}
}

// throughWire is what comes of messages through PDUs of that PDU Length.
func throughWire(t *testing.T, maxPDU uint16, messages []wire.VendorPrivate) (out []wire.VendorPrivate) {
	t.Helper()
	var f wire.Framer
	f.SetMaxPDULength(maxPDU)
	for _, m := range messages {
		stream, err := wire.AppendPDU(nil, wire.Identifier{LSR: wire.LSRID{10, 0, 0, 1}}, maxPDU, m)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(stream)
		for pdu, ok, err := f.Next(); ok || err != nil; pdu, ok, err = f.Next() {
			if err != nil {
				t.Fatal(err)
			}
			for m, err := range pdu.Messages() {
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, m.(wire.VendorPrivate))
			}
		}
	}
	return out
}

// Parts that are out of order, of another whole, or too much end it, and the next whole is taken.
func TestWrongParts(t *testing.T) {
	raw := bytes.Repeat([]byte("body"), 100)
	parts := Messages(TypeTold, raw, 256)
	if len(parts) != 2 {
		t.Fatalf("%d parts", len(parts))
	}
	other := parts[1]
	other.MessageType = TypeRefreshed
	short, version := parts[0], parts[0]
	short.Data = short.Data[:partHeader-1]
	version.Data = append([]byte{2}, version.Data[1:]...)
	huge := parts[0]
	huge.Data = append(bytes.Clone(huge.Data[:6]), 0, 0, 0, 0)
	for name, sent := range map[string][]wire.VendorPrivate{
		"the second alone": {parts[1]}, "the second twice": {parts[0], parts[1], parts[1]}, "of another kind": {parts[0], other},
		"short": {short}, "another version": {version}, "of none": {huge},
	} {
		var a Assembler
		var err error
		for _, m := range sent {
			_, err = a.Add(m)
		}
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := a.Add(parts[0]); err != nil {
			t.Errorf("%s, and then: %v", name, err)
		}
		if whole, err := a.Add(parts[1]); err != nil || !bytes.Equal(whole, raw) {
			t.Errorf("%s, and then: %d bytes, %v", name, len(whole), err)
		}
	}
}

func TestWhatIsNoBinding(t *testing.T) {
	for name, change := range map[string]func(*tdpdv1.UserBinding){
		"a refusal of later":  func(p *tdpdv1.UserBinding) { p.Refuse = 3 },
		"a refusal below":     func(p *tdpdv1.UserBinding) { p.Refuse = -256 },
		"nobody and servers":  func(p *tdpdv1.UserBinding) { p.Nobody = &allocv1.Epoch{} },
		"a VIP of 5 bytes":    func(p *tdpdv1.UserBinding) { p.Vips[0] = make([]byte, 5) },
		"a prefix of 6 bytes": func(p *tdpdv1.UserBinding) { p.Split[0] = make([]byte, 6) },
		"a prefix of 33 bits": func(p *tdpdv1.UserBinding) { p.Split[0] = []byte{10, 0, 0, 0, 33} },
		"users but servers":   func(p *tdpdv1.UserBinding) { p.UserServers = nil },
		"a server of nobody":  func(p *tdpdv1.UserBinding) { p.UserServers[0] = 2 },
	} {
		p, err := ToProto(example(4))
		if err != nil {
			t.Fatal(err)
		}
		change(p)
		if _, err := FromProto(p); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAssemblerIsBounded(t *testing.T) {
	var a Assembler
	m := Messages(TypeTold, make([]byte, 1<<16), 65535)[0]
	count := []byte{0xff, 0xff, 0xff, 0xff}
	for part := uint32(1); ; part++ {
		m.Data = append([]byte{version, 0, byte(part >> 24), byte(part >> 16), byte(part >> 8), byte(part)}, append(count, m.Data[partHeader:]...)...)
		if _, err := a.Add(m); err != nil {
			if !errors.Is(err, ErrInvalid) || len(a.raw) > 0 {
				t.Errorf("%v, %d bytes kept", err, len(a.raw))
			}
			return
		}
		if len(a.raw) > MaxSize {
			t.Fatalf("%d bytes are kept", len(a.raw))
		}
	}
}

func TestCapability(t *testing.T) {
	later := wire.VendorTLV(TypeOffered, Vendor, []byte{2})
	for name, c := range map[string]struct {
		tlvs []wire.TLV
		want bool
	}{
		"offered":         {[]wire.TLV{{Type: 0x3e00, Value: make([]byte, 9)}, Capability()}, true},
		"nothing":         {nil, false},
		"another vendor":  {[]wire.TLV{wire.VendorTLV(TypeOffered, 1, []byte{1})}, false},
		"another version": {[]wire.TLV{later}, false},
		"without version": {[]wire.TLV{wire.VendorTLV(TypeOffered, Vendor, nil)}, false},
	} {
		if got := Offered(c.tlvs); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range []steering.Binding{example(4), {Service: "web"}, nobody()} {
		b.Voucher = router(1)
		raw, err := Encode(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := Decode(raw)
		if err != nil {
			return
		}
		again, err := Encode(b)
		if err != nil {
			return // an address of IPv6 where the wire has none
		}
		c, err := Decode(again)
		if diff := cmp.Diff(b, c, sameAddr...); err != nil || diff != "" {
			t.Errorf("%v, -first +second:\n%s", err, diff)
		}
	})
}

func FuzzAssembler(f *testing.F) {
	f.Add(uint16(TypeTold), Messages(TypeTold, []byte("body"), 256)[0].Data, []byte{1, 0, 0, 0, 0, 2, 0, 0, 0, 2})
	f.Fuzz(func(t *testing.T, kind uint16, first, second []byte) {
		var a Assembler
		for _, data := range [][]byte{first, second, first} {
			whole, err := a.Add(wire.VendorPrivate{MessageType: wire.MessageType(kind), Vendor: Vendor, Data: data})
			if err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("error %v", err)
			}
			if len(whole) > len(first)*2+len(second) || len(a.raw) > MaxSize {
				t.Errorf("%d bytes of %d and %d", len(whole), len(first), len(second))
			}
		}
	})
}
