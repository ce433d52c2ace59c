package journal

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

var (
	one = netip.MustParsePrefix("10.0.0.0/24")
	two = netip.MustParsePrefix("2001:db8::/32")
)

func open(t *testing.T, path, boot string, want map[netip.Prefix]wire.Label) *Journal {
	t.Helper()
	j, err := Open(path, boot)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(j.Labels(), want) {
		t.Fatalf("%v, want %v", j.Labels(), want)
	}
	return j
}

// TestLabelsOutliveTheProcess: what was set is there for the next run of the same boot, a torn line is not.
func TestLabelsOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labels")
	j := open(t, path, "b1", map[netip.Prefix]wire.Label{})
	if err := j.Set(map[netip.Prefix]wire.Label{one: 16, two: 17}, nil); err != nil {
		t.Fatal(err)
	}
	if err := j.Set(map[netip.Prefix]wire.Label{one: 18}, []netip.Prefix{two}); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("99 10.0.0.0/2")
	f.Close()
	j = open(t, path, "b1", map[netip.Prefix]wire.Label{one: 18})
	j.Close()
	j = open(t, path, "b2", map[netip.Prefix]wire.Label{})
	if err := j.Remove(); err != nil {
		t.Fatal(err)
	}
}

// TestItIsWrittenAnew: the past does not pile up.
func TestItIsWrittenAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labels")
	j := open(t, path, "b", map[netip.Prefix]wire.Label{})
	for n := range 3 * spare {
		if err := j.Set(map[netip.Prefix]wire.Label{one: wire.Label(16 + n)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 30*spare {
		t.Errorf("%d bytes for one label, %v", info.Size(), err)
	}
	j.Close()
	open(t, path, "b", map[netip.Prefix]wire.Label{one: 16 + 3*spare - 1}).Close()
}
