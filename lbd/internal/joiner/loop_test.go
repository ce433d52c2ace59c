package joiner

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
)

func startLoop(t *testing.T, keep bool) (l *Loop, socket *FakeSocket, log *bytes.Buffer, stop func()) {
	t.Helper()
	ring := &Keyring{}
	ring.Set([]Key{{groupA, 7, key}, {groupB, 8, key}})
	j, err := New(config, ring, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	socket, log = NewFakeSocket(), &bytes.Buffer{}
	l = NewLoop(j, socket, keep, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	return l, socket, log, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
	}
}

func TestLoopSendsAndLeaves(t *testing.T) {
	for _, keep := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l, socket, _, stop := startLoop(t, keep)
			if err := l.Set(t.Context(), []Membership{member(groupA, 1, 1)}); err != nil {
				t.Fatal(err)
			}
			if n := len(socket.Sent()); n != 1 {
				t.Errorf("%d reports when Set returned, want 1", n)
			}
			if got := socket.Groups(); !slices.Equal(got, l.groups) || len(got) != 1 {
				t.Errorf("the link takes groups %v", got)
			}
			time.Sleep(24500 * time.Millisecond) // the bubble's clock: two more of the change, two refreshes
			synctest.Wait()
			if n := len(socket.Sent()); n != 4 {
				t.Errorf("%d reports in 24.5 s, want 4", n)
			}
			socket.Ask(igmp.Query{Version: 3, MaxResp: time.Second})
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			if n := len(socket.Sent()); n != 1 {
				t.Errorf("%d answers to a query, want 1", n)
			}
			stop()
			sent := socket.Sent()
			if keep {
				if len(sent) != 0 {
					t.Errorf("%d reports at the end, want none", len(sent))
				}
				return
			}
			if len(sent) != 1 {
				t.Fatalf("%d reports at the end, want a leave", len(sent))
			}
			m, err := igmp.Parse(sent[0])
			if err != nil {
				t.Fatal(err)
			}
			if rec := m.(igmp.Report).Records[0]; rec.Type != igmp.ChangeToInclude {
				t.Errorf("the last record is %v", rec)
			}
		})
	}
}

func TestLoopGoesOnWhenTheLinkFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, socket, log, stop := startLoop(t, true)
		socket.Fail(errors.New("network is down"))
		if err := l.Set(t.Context(), []Membership{member(groupA, 1, 1)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24500 * time.Millisecond) // tries are at whole seconds
		socket.Fail(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(socket.Sent()); n != 1 {
			t.Errorf("%d reports after the link came back, want the one that is owed", n)
		}
		if got := socket.Groups(); len(got) != 1 {
			t.Errorf("the link takes groups %v after it came back", got)
		}
		stop()
		if n := strings.Count(log.String(), "network is down"); n > 2 {
			t.Errorf("the same failure was logged %d times:\n%s", n, log)
		}
	})
}

// A standing group is joined without portions whatever Set says, and left at the end.
func TestLoopStandingGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := &Keyring{}
		ring.Set([]Key{{groupA, 7, key}, {groupB, 8, key}})
		c := config
		c.Standing = []netip.Addr{groupB}
		j, err := New(c, ring, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		socket := NewFakeSocket()
		l := NewLoop(j, socket, false, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		for _, want := range [][]Membership{{member(groupA, 1, 1)}, nil} {
			if err := l.Set(t.Context(), want); err != nil {
				t.Fatal(err)
			}
			if got := socket.Groups(); len(got) != len(want)+1 || !slices.Contains(got, groupB) {
				t.Errorf("the link takes groups %v", got)
			}
		}
		socket.Sent()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := socket.Groups(); len(got) != 0 {
			t.Errorf("the link takes groups %v after the end", got)
		}
		left := false
		for _, report := range socket.Sent() {
			m, err := igmp.Parse(report)
			if err != nil {
				t.Fatal(err)
			}
			joins, err := join.FromReport(m.(igmp.Report))
			if err != nil {
				t.Fatal(err)
			}
			left = left || slices.ContainsFunc(joins, func(s join.Signed) bool {
				return s.Leave && s.Group == groupB && s.Verify(key.Public().(ed25519.PublicKey))
			})
		}
		if !left {
			t.Error("the routers were not told that the group is left")
		}
	})
}

func TestLoopSetEndsWithTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _, _, stop := startLoop(t, false)
		stop()
		if err := l.Set(t.Context(), nil); err == nil {
			t.Error("Set took memberships after the end")
		}
	})
}

func TestLoopEndsWithTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := New(config, &Keyring{}, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		socket := NewFakeSocket()
		ended := make(chan error)
		go func() {
			ended <- NewLoop(j, socket, false, slog.New(slog.DiscardHandler)).Run(t.Context())
		}()
		socket.Break(ErrLinkGone)
		if err := <-ended; !errors.Is(err, ErrLinkGone) {
			t.Errorf("ended with %v", err)
		}
		if _, err := socket.ReadQuery(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the socket is open: %v", err)
		}
	})
}
