package mover

import (
	"errors"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/lbd/internal/handover/peer"
)

// TestNetOtherVersion: of two servers one speaks the next version of the protocol, whichever of them gives. Connections stay where they are, packets
// of them are forwarded, and none is lost.
func TestNetOtherVersion(t *testing.T) {
	for _, newer := range []string{"s1", "s2"} {
		t.Run(newer+" is newer", func(t *testing.T) {
			r := newRig(t, func(name string, c *peer.Config) {
				if name == newer {
					c.Version = peer.Version + 1
				}
			})
			s1, s2 := r.servers["s1"], r.servers["s2"]
			var all []*numbers
			for range 4 {
				all = append(all, r.numbers())
			}
			goOn := func(what string) {
				t.Helper()
				for _, n := range all {
					got := n.got.Load()
					testnet.Eventually(t, 10*time.Second, func() bool { n.check(t); return n.got.Load() > got+800 }, what)
				}
			}
			goOn("streams of s1's users")
			for _, n := range all {
				n.switched.Store(0) // its first server was one, too
			}
			r.commit("s2")
			testnet.Eventually(t, 10*time.Second, func() bool { return s2.hasRefused(peer.ErrVersion) }, "s2 refuses the link of another version")
			goOn("streams go on at s1, though their users are s2's")
			for _, n := range all {
				if n.switched.Load() != 0 {
					t.Error("a stream goes on at s2")
				}
			}
			all = append(all, r.numbers())
			goOn("new streams at s2")
			r.commit("s1")
			testnet.Eventually(t, 10*time.Second, func() bool { return s1.hasRefused(peer.ErrVersion) }, "s1 refuses the link of another version")
			goOn("streams where they were, when their users are back")
			for name, s := range r.servers {
				if c := s.Counters(); c.Given+c.Taken != 0 || len(c.Lost)+len(c.NotTaken) > 0 {
					t.Errorf("%s counts %+v", name, c)
				}
				if c, err := s.plane.Counters(); err != nil || c.ForwardEnded > 0 || c.ForwardedOut == 0 {
					t.Errorf("the programs of %s count %+v, %v", name, c, err)
				}
			}
		})
	}
}

func (s *rigServer) hasRefused(want error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, err := range s.refused {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}
