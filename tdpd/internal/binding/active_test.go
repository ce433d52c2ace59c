package binding

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// users of both families.
func users(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func TestActiveBothWays(t *testing.T) {
	want := Active{"web", users("10.1.0.11", "198.51.100.7", "2001:db8:7::")}
	raw, err := EncodeActive(want)
	if err != nil {
		t.Fatal(err)
	}
	var a Assembler
	var whole []byte
	for _, m := range throughWire(t, 256, Messages(TypeActive, raw, 256)) {
		if !Ours(m) {
			t.Error("not ours")
		}
		if whole, err = a.Add(m); err != nil {
			t.Fatal(err)
		}
	}
	got, err := DecodeActive(whole)
	if diff := cmp.Diff(want, got, sameAddr...); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

func TestActiveRefused(t *testing.T) {
	most := make([]netip.Addr, MaxActive)
	for i := range most {
		most[i] = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
	}
	for name, c := range map[string]struct {
		users []netip.Addr
		want  error
	}{
		"as many as may be": {most, nil},
		"too many":          {append(most, netip.MustParseAddr("2001:db8::")), ErrTooMany},
		"nobody":            {nil, ErrInvalid},
		"a group":           {users("10.1.0.11", "224.0.0.1"), ErrNoUser},
		"this host":         {users("0.1.2.3"), ErrNoUser},
		"loopback":          {users("127.0.0.1"), ErrNoUser},
		"broadcast":         {users("255.255.255.255"), ErrNoUser},
		"a group of IPv6":   {users("ff0e::"), ErrNoUser},
		"no prefix":         {users("::"), ErrNoUser},
		"link-local":        {users("fe80::"), ErrNoUser},
	} {
		raw, err := EncodeActive(Active{"web", c.users})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeActive(raw); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := DecodeActive([]byte("nonsense")); !errors.Is(err, ErrInvalid) {
		t.Errorf("nonsense: %v", err)
	}
}

func TestUser(t *testing.T) {
	for address, want := range map[string]string{
		"10.1.0.11": "10.1.0.11", "2001:db8:7::9": "2001:db8:7::", "::ffff:10.1.0.11": "", "fe80::1": "", "239.1.1.1": "", "::1": "",
	} {
		u, ok := User(netip.MustParseAddr(address))
		if ok != (want != "") || ok && u.String() != want {
			t.Errorf("%s: %v, %v, want %s", address, u, ok, want)
		}
	}
}

func FuzzDecodeActive(f *testing.F) {
	raw, err := EncodeActive(Active{"web", users("10.1.0.11", "2001:db8:7::")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := DecodeActive(raw)
		if err != nil {
			return
		}
		if len(a.Users) == 0 || len(a.Users) > MaxActive {
			t.Fatalf("%d users", len(a.Users))
		}
		again, err := EncodeActive(a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := DecodeActive(again)
		if diff := cmp.Diff(a, b, sameAddr...); err != nil || diff != "" {
			t.Errorf("%v, -first +second:\n%s", err, diff)
		}
	})
}
