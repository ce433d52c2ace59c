package interop

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/manycast/manycast/tdpd/internal/binding"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/steering"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// offering is a proposal of a router that takes bindings of users.
func (i *intruder) offering() wire.Initialization {
	p := i.proposal()
	p.Others = []wire.TLV{binding.Capability()}
	return p
}

// tells says a binding as a router that passes it on.
func (i *intruder) tells(kind wire.MessageType, b steering.Binding) {
	i.line.t.Helper()
	raw, err := binding.Encode(b)
	if err != nil {
		i.line.t.Fatal(err)
	}
	for _, m := range binding.Messages(kind, raw, 1024) {
		i.say(m)
	}
}

// hearsOfUsers says whether messages about users have come before the answer to a request.
func (i *intruder) hearsOfUsers() (heard bool) {
	i.line.t.Helper()
	i.line.asked++
	id := i.line.asked
	i.say(wire.LabelRequest{Head: wire.Head{ID: id}, FEC: wire.FEC{wire.Prefix{Prefix: i.line.host4(i.peer)}}})
	i.hears("an answer", func(m wire.Message) bool {
		_, private := m.(wire.VendorPrivate)
		heard = heard || private
		mapping, ok := m.(wire.LabelMapping)
		return ok && mapping.RequestID != nil && *mapping.RequestID == id
	})
	return heard
}

// TestVMWrongUserBindings: what a peer may not say of users is refused and counted by its reason. Neither the session ends, nor what
// users are steered by.
func TestVMWrongUserBindings(t *testing.T) {
	var peer, other netip.Addr
	_, o, i := hostile(t, func(r *role) {
		peer, other = netip.AddrFrom4([4]byte{10, 255, 0, 9}), netip.AddrFrom4([4]byte{10, 255, 0, 77})
		r.Config.Users.Accept = []config.UsersAccepted{{From: peer, VIPs: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}}
	})
	server := netip.MustParseAddr("192.0.2.80")
	said := func(voucher netip.Addr, sequence, number uint64) steering.Binding {
		b := allUsers(sequence, number, server)
		b.Voucher, b.Path = voucher, []netip.Addr{voucher}
		if voucher != peer {
			b.Path = append(b.Path, peer)
		}
		return b
	}
	want := map[string]uint64{}
	refused := func(what, reason string, steers uint64) {
		t.Helper()
		if !i.answers() {
			t.Errorf("%s ends the session", what)
			i.session(i.offering())
		}
		want[reason]++
		if got := o.status().GetUserBindingsRefused(); !maps.Equal(got, want) {
			t.Errorf("%s: refused %v, want %v", what, got, want)
			maps.Copy(want, got)
		}
		if got := o.steers(); got != steers {
			t.Errorf("%s: users are steered by %d, want %d", what, got, steers)
		}
	}
	i.tells(binding.TypeTold, said(peer, 1, 1))
	refused("a peer that has not offered the capability", "not_offered", 0)
	i.session(i.offering())
	i.tells(binding.TypeTold, said(peer, 1, 2))
	if !i.answers() || o.steers() != 2 {
		t.Fatalf("a good binding: users are steered by %d", o.steers())
	}
	otherwise := func(b steering.Binding) steering.Binding {
		b.Allocation.Servers = []string{"another"}
		return b
	}
	i.tells(binding.TypeTold, otherwise(said(other, 1, 2)))
	refused("another voucher's of the same epoch, otherwise", "contradicts", 2)
	i.tells(binding.TypeTold, otherwise(said(peer, 1, 2)))
	refused("the same voucher's, otherwise", "stale", 2)
	foreign := said(peer, 1, 9)
	foreign.Service, foreign.VIPs = "mail", []netip.Addr{netip.MustParseAddr("198.51.100.25")}
	i.tells(binding.TypeTold, foreign)
	refused("a VIP that is not the peer's to bind", "not_trusted", 2)
	taken := said(peer, 1, 9)
	taken.Service = "mail"
	i.tells(binding.TypeTold, taken)
	refused("a VIP of another service", "taken", 2)
	loop := said(o.line.id(o.at), 1, 9)
	i.tells(binding.TypeTold, loop)
	refused("our own word", "loop", 2)
	i.tells(binding.TypeRefreshed, steering.Binding{Service: "web", Voucher: other, Sequence: 1, Path: []netip.Addr{other, peer}, Lifetime: said(peer, 1, 1).Lifetime})
	refused("a refresh of what was not told", "stale", 2)
	i.say(wire.VendorPrivate{MessageType: binding.TypeTold, Unknown: true, Vendor: binding.Vendor, Data: []byte{1, 2, 3}})
	refused("half a header", "malformed", 2)
	i.say(wire.VendorPrivate{MessageType: binding.TypeTold, Unknown: true, Vendor: 0x00005e, Data: []byte{1, 2, 3}})
	if !i.answers() || !maps.Equal(o.status().GetUserBindingsRefused(), want) {
		t.Error("another vendor's message of that type is not ignored")
	}
	if begun, up := o.sessions(0); begun != 2 || !up {
		t.Errorf("%d sessions, one now: %v", begun, up)
	}
	o.alive()
}

// TestVMUsersOfStrangers: a peer that is named nowhere binds nothing, and one that is named as upstream is told only where it takes bindings.
func TestVMUsersOfStrangers(t *testing.T) {
	server := netip.MustParseAddr("192.0.2.80")
	_, o, i := hostile(t, func(r *role) { r.Config.Users.Upstream = []netip.Addr{netip.AddrFrom4([4]byte{10, 255, 0, 9})} })
	o.bind(allUsers(1, 1, server))
	if i.hearsOfUsers() {
		t.Error("it is told of users, and has not offered to take that")
	}
	i.session(i.offering())
	o.bind(allUsers(2, 2, server))
	if !i.hearsOfUsers() {
		t.Error("it takes bindings, and is not told")
	}
	b := allUsers(1, 3, server)
	b.Voucher, b.Path = i.line.id(0), []netip.Addr{i.line.id(0)}
	i.tells(binding.TypeTold, b)
	if !i.answers() || fmt.Sprint(o.status().GetUserBindingsRefused()) != "map[not_trusted:1]" || o.steers() != 2 {
		t.Errorf("a stranger's binding: refused %v, users are steered by %d", o.status().GetUserBindingsRefused(), o.steers())
	}
	o.alive()
}

// TestVMUserBindingsToFRR: FRR goes on, in silence, when a neighbor offers it the capability and tells it bindings all the same, of any
// length; without the U bit it says that it does not know them, and goes on, too.
func TestVMUserBindingsToFRR(t *testing.T) {
	l := newLine(t, 9, 1)
	f, i := l.frr(1, frrConfig{is4: true}), l.intruder(0, 1, "r")
	l.eventually(func() bool { return strings.Contains(f.ldpd.Output(), "nbr_new: lsr-id "+l.id(0).String()) }, "FRR hears the intruder")
	i.session(i.offering())
	b := allUsers(1, 1, netip.MustParseAddr("192.0.2.80"))
	b.Voucher, b.Path = l.id(0), []netip.Addr{l.id(0)}
	for n := range 1000 {
		b.Users = append(b.Users, steering.User{Address: netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), Server: "s"})
	}
	quiet := func(what string) {
		t.Helper()
		l.asked++
		id := l.asked
		i.say(wire.LabelRequest{Head: wire.Head{ID: id}, FEC: wire.FEC{wire.Prefix{Prefix: l.host4(1)}}})
		i.hears("an answer of FRR", func(m wire.Message) bool {
			if n, ok := m.(wire.Notification); ok && n.Status.Code != wire.StatusEndOfLIB {
				t.Errorf("%s: FRR says %v", what, n.Status.Code)
			}
			mapping, ok := m.(wire.LabelMapping)
			return ok && mapping.RequestID != nil && *mapping.RequestID == id
		})
	}
	quiet("the capability")
	i.tells(binding.TypeTold, b)
	quiet("a binding")
	i.tells(binding.TypeRefreshed, steering.Binding{Service: "web", Voucher: l.id(0), Sequence: 1, Path: b.Path, Lifetime: b.Lifetime})
	quiet("a refresh")
	i.say(wire.VendorPrivate{MessageType: binding.TypeTold, Vendor: binding.Vendor, Data: []byte{1}})
	if n, err := i.told(); err != nil || n.Status.Code != wire.StatusUnknownMessageType || n.Status.Fatal {
		t.Errorf("without the U bit FRR says %v, fatal %v, %v", n.Status.Code, n.Status.Fatal, err)
	}
	quiet("all of it")
	if n := f.neighbor(0); n.State != "OPERATIONAL" {
		t.Errorf("FRR's session is %s", n.State)
	}
}
