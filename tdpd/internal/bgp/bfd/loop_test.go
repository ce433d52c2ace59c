package bfd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var peer = netip.MustParseAddr("10.0.1.2")

func neighbors() []Neighbor {
	return []Neighbor{{Session{Peer: peer, Transmit: 50 * time.Millisecond, Receive: 50 * time.Millisecond, Multiplier: 3}, 9 * time.Second}}
}

// TestLoop: a failure is told within half an interval; a keeper that restarts has the sessions again; they go at the end.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, log := NewFake(), &bytes.Buffer{}
		l := NewLoop(fake, neighbors(), slog.New(slog.NewTextHandler(log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		out := func(want ...netip.Addr) {
			t.Helper()
			select {
			case got := <-l.Out():
				if !slices.Equal(got, want) {
					t.Fatalf("out are %v, want %v", got, want)
				}
			case <-time.After(30 * time.Millisecond):
				t.Fatalf("nothing is told, want %v", want)
			}
		}
		kept := func(n int) {
			t.Helper()
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if all, times := fake.Kept(); times != n || !slices.Equal(all, []Session{neighbors()[0].Session}) {
				t.Fatalf("kept %v, told %d times", all, times)
			}
		}
		kept(1)
		fake.Set(peer, Up)
		kept(1)
		fake.Set(peer, Failed)
		out(peer)
		fake.Set(peer, Up)
		out()
		fake.Forget()
		kept(2)
		fake.Fail(errors.New("gone"))
		time.Sleep(10 * time.Second)
		fake.Fail(nil)
		kept(2) // it has them still
		if n := strings.Count(log.String(), "err=gone"); n != 1 {
			t.Errorf("that it is gone is told %d times", n)
		}
		fake.Set(peer, Up)
		time.Sleep(time.Second)
		fake.Set(peer, Failed)
		time.Sleep(20 * time.Second) // nobody has read it, and by now it is out of date
		out()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if all, _ := fake.Kept(); len(all) > 0 {
			t.Errorf("still kept: %v", all)
		}
	})
}
