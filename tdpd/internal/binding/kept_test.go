package binding

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/steering"
)

func TestKept(t *testing.T) {
	f := File(filepath.Join(t.TempDir(), "users"))
	if k, err := f.Load(); err != nil || len(k.Bindings)+len(k.Owners) > 0 {
		t.Errorf("of nothing: %+v, %v", k, err)
	}
	want := Kept{[]steering.Binding{example(8), example(4)}, map[netip.Addr]steer.Owner{router(7): 3, netip.MustParseAddr("2001:db8::1"): 1}, time.Time{}}
	for range 2 {
		if err := f.Save(want); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(1_800_000_000, 0)
		if err := f.Touch(at); err != nil {
			t.Fatal(err)
		}
		got, err := f.Load()
		if !got.At.Equal(at) {
			t.Errorf("at %v, want %v", got.At, at)
		}
		got.At = time.Time{}
		if diff := cmp.Diff(want, got, sameAddr...); err != nil || diff != "" {
			t.Errorf("%v, -want +got:\n%s", err, diff)
		}
	}
	if err := os.WriteFile(string(f), []byte("nothing of the kind"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), "in "+string(f)) {
		t.Errorf("of garbage: %v", err)
	}
	for range 2 {
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
	}
	if err := f.Touch(time.Now()); err != nil {
		t.Errorf("of nothing: %v", err)
	}
}
