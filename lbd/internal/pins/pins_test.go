package pins

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/manycast/manycast/internal/epoch"
)

var same = []cmp.Option{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

func example(users int) Pins {
	p := Pins{Service: "web", Server: "s1.example", Epoch: epoch.Epoch{Term: 1, Number: 2}, Over: 3, Apart: 4}
	for i := range users {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 0x0a010000+uint32(i))
		p.Users = append(p.Users, netip.AddrFrom4(b))
	}
	return p
}

func TestBothWays(t *testing.T) {
	for _, want := range []Pins{example(0), example(2), example(Max)} {
		raw, err := Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(Key(want.Service, want.Server), raw)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, same...); d != "" {
			t.Error(d)
		}
	}
}

func TestWhatIsNoPins(t *testing.T) {
	unsorted := example(2)
	unsorted.Users[0], unsorted.Users[1] = unsorted.Users[1], unsorted.Users[0]
	for name, p := range map[string]Pins{"too many": example(Max + 1), "not sorted": unsorted} {
		raw, err := Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode("web.s1", raw); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, key := range []string{"web", "web.", ".s1", ""} {
		if _, err := Decode(key, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, p := range []Pins{example(0), example(3)} {
		raw, err := Encode(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("web.s1", raw)
	}
	f.Fuzz(func(t *testing.T, key string, raw []byte) {
		p, err := Decode(key, raw)
		if err != nil {
			return
		}
		again, err := Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		q, err := Decode(key, again)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(p, q, same...); d != "" {
			t.Fatal(d)
		}
	})
}
