package interop

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// TestNetListen: a speaker that goes on is told where to listen from now on, as after a restart of tdpd with another configuration: it does, and has all else as before. Who says the
// same again ends no session.
func TestNetListen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.taking(everything)
	r.d.Unicast = []bgp.Path{{Prefix: vip4}}
	seen, far := r.watch(), netip.MustParsePrefix("198.51.100.0/24")
	f := r.frr(frrConfig{global: " no bgp network import-check\n", families: family("ipv4 unicast", us4, "network 198.51.100.0/24")})
	there := func(when string) {
		t.Helper()
		r.established(frr4)
		r.eventually(func() bool { return len(f.routes("ipv4 unicast", vip4)) == 1 && seen.unicast(far) != nil }, when, ": what both tell")
	}
	listens := func(port uint16) bool {
		c, err := r.peer.DialContext(t.Context(), "tcp", fmt.Sprintf("%v:%d", us4, port))
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	r.apply()
	there("at first")
	for _, next := range []struct {
		what   string
		listen []netip.Addr
		port   uint16
		is     []uint16
	}{{"another port", nil, 1790, []uint16{1790}}, {"another address", []netip.Addr{us6}, 1790, nil}, {"nowhere", nil, 0, nil}, {"as at first", nil, 179, []uint16{179}}} {
		r.d.Listen, r.d.Port = next.listen, next.port
		r.apply()
		there(next.what)
		for _, port := range []uint16{179, 1790} {
			if is, want := listens(port), len(next.is) > 0 && next.is[0] == port; is != want {
				t.Errorf("%s: it listens at port %d: %v, want %v", next.what, port, is, want)
			}
		}
		since := r.state(frr4).Since
		r.apply()
		if s := r.state(frr4); s.State != bgp.Established || s.Since != since {
			t.Errorf("%s, said again: %+v, since %v before", next.what, s, since)
		}
	}
	if n := r.child.Restarts(); n != 0 {
		t.Errorf("the speaker's process has ended %d times", n)
	}
}
