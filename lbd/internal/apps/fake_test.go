package apps

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
)

func TestFake(t *testing.T) {
	local, remote := netip.MustParseAddrPort("192.0.2.80:80"), netip.MustParseAddrPort("198.51.100.7:40000")
	f, fake := Flow{local, remote}, NewFake()
	if _, err := fake.Export(t.Context(), f); !errors.Is(err, ErrUnknown) || fake.Serves(local) {
		t.Errorf("an empty fake: %v", err)
	}
	if _, err := fake.Import(t.Context(), f, 3, nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("Import: %v", err)
	}
	fake.Listen(local, nil)
	i, err := fake.Import(t.Context(), f, 3, []byte("state"))
	if err != nil {
		t.Fatal(err)
	}
	i.Live()
	e, err := fake.Export(t.Context(), f)
	if err != nil || e.FD() != 3 || string(e.App()) != "state" {
		t.Fatalf("Export: %v", err)
	}
	e.Back()
	e.Gone()
	if got := fake.Conn(f).History(); !slices.Equal(got, []string{"imported", "live", "exported", "back"}) {
		t.Errorf("history: %v", got)
	}
	stays := &StaysError{"no"}
	fake.Listen(local, stays)
	if _, err := fake.Import(t.Context(), f, 3, nil); !errors.Is(err, stays) {
		t.Errorf("Import: %v", err)
	}
	fake.Put(f, &FakeConn{Fail: stays})
	if _, err := fake.Export(t.Context(), f); !errors.Is(err, stays) {
		t.Errorf("Export: %v", err)
	}
	fake.Put(f, &FakeConn{Wait: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fake.Export(ctx, f); !errors.Is(err, context.Canceled) {
		t.Errorf("Export: %v", err)
	}
}
