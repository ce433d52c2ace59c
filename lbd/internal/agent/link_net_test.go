package agent

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/testnet"
)

// TestNetFindLink: connections of IPv6 live at an address that stays, not at the first one that there is.
func TestNetFindLink(t *testing.T) {
	net := testnet.New(t)
	s, r := net.Node("s"), net.Node("r")
	net.Link(s, "eth0", "10.0.0.2/24", r, "s", "10.0.0.1/24")
	run := func(args ...string) {
		t.Helper()
		if out, err := s.Run(append([]string{"ip"}, args...)...); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	find := func(address, address6 string) (l Link, err error) {
		err = s.Do(func() (err error) {
			l, err = FindLink("eth0", address, address6)
			return err
		})
		return l, err
	}
	if l, err := find("", ""); err != nil || l != (Link{Address: netip.MustParseAddr("10.0.0.2"), Prefix: netip.MustParsePrefix("10.0.0.0/24"), MTU: 1500}) {
		t.Errorf("without IPv6: %+v, %v", l, err)
	}
	run("-6", "addr", "add", "2001:db8::2/64", "dev", "eth0", "nodad")
	run("-6", "addr", "add", "2001:db8::dead/64", "dev", "eth0", "nodad", "preferred_lft", "0")
	run("addr", "add", "10.0.1.2/24", "dev", "eth0")
	if l, err := find("", ""); err != nil || l.Address6 != netip.MustParseAddr("2001:db8::2") {
		t.Errorf("beside one that is deprecated: %+v, %v", l, err)
	}
	if l, err := find("10.0.1.2", "2001:db8::2"); err != nil || l.Address != netip.MustParseAddr("10.0.1.2") || l.Prefix != netip.MustParsePrefix("10.0.1.0/24") || l.Address6 != netip.MustParseAddr("2001:db8::2") {
		t.Errorf("by name: %+v, %v", l, err)
	}
	for _, c := range []struct{ address, address6, want string }{
		{"10.0.0.3", "", "does not have address 10.0.0.3"},
		{"", "2001:db8::3", "does not have address 2001:db8::3"},
		{"", "2001:db8::dead", "not for good"},
	} {
		if _, err := find(c.address, c.address6); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %q: %v", c.address, c.address6, err)
		}
	}
}
