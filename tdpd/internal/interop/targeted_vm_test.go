package interop

import (
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/config"
)

// TestVMTargeted: two that share no link have a session by targeted hellos, and each other's labels; with FRR, too. It outlives its hold time.
func TestVMTargeted(t *testing.T) {
	for name, frr := range map[string]bool{"ours": false, "FRR": true} {
		t.Run(name, func(t *testing.T) {
			l := newLine(t, 9, 5, 1)
			targeted := func(with int) func(*role) {
				return func(r *role) {
					r.Config.Interfaces, r.Config.Hello.TargetedHold = nil, hold
					r.Config.Neighbors = []config.Neighbor{{RouterID: l.id(with), Targeted: l.id(with)}}
				}
			}
			a := l.tdpd(0, targeted(2))
			if frr {
				f := l.frr(2, frrConfig{is4: true, v4: "  neighbor " + l.id(0).String() + " targeted\n", global: " discovery targeted-hello interval 2\n discovery targeted-hello holdtime 6\n"})
				operational(l, a, f)
				l.eventually(func() bool { _, remote := f.bindings(0, l.host4(0)); return remote == "imp-null" }, "our implicit null in FRR")
			} else {
				c := l.tdpd(2, func(r *role) { // answers whoever greets it
					r.Config.Interfaces, r.Config.Hello.TargetedHold = nil, hold
					r.Config.Hello.AcceptTargeted = []netip.Prefix{l.host4(0)}
				})
				c.meets(0)
				l.eventually(func() bool { return c.remote(0, l.host4(0)) == "3" }, "the first one's implicit null")
			}
			a.meets(2)
			l.eventually(func() bool { return a.remote(2, l.host4(2)) == "3" }, "the last one's implicit null")
			time.Sleep(hold + hold/2)
			if begun, up := a.sessions(2); begun != 1 || !up {
				t.Errorf("%d sessions, one now: %v", begun, up)
			}
		})
	}
}
