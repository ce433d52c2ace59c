package kernel

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

func TestClientServicesAreChecked(t *testing.T) {
	good := ClientService{VIP: at("192.0.2.80:80"), Published: published}
	for want, services := range map[string][]ClientService{
		"":                   {good, {VIP: at("192.0.2.80:443")}, {VIP: at("[2001:db8::80]:80"), Published: published6}},
		"said twice":         {good, good},
		"address and port":   {{VIP: at("239.0.0.1:80")}},
		"one of its family":  {{VIP: good.VIP, Published: published6}},
		"VIP 192.0.2.80:0":   {{VIP: at("192.0.2.80:0")}},
		"VIP [::ffff:192.0.": {{VIP: at("[::ffff:192.0.2.80]:80")}},
	} {
		says(t, NewFakeClient().Set(services), want)
	}
}

func TestServerServicesAreChecked(t *testing.T) {
	vip, other, d, e := at("192.0.2.80:80"), at("192.0.2.80:443"), at("10.2.0.3:80"), at("10.2.0.4:80")
	for want, services := range map[string][]ServerService{
		"":                       {{VIP: vip, Destination: d, Also: []netip.AddrPort{e}}, {VIP: other, Destination: at("10.2.0.3:443")}},
		"VIP 192.0.2.80:80: sai": {{VIP: vip, Destination: d}, {VIP: vip, Destination: e}},
		"10.2.0.3:80: said":      {{VIP: vip, Destination: d}, {VIP: other, Destination: e, Also: []netip.AddrPort{d}}},
		"is a destination, too":  {{VIP: vip, Destination: vip}},
		"of another family":      {{VIP: vip, Destination: at("[2001:db8::1]:80")}},
		"destination 10.2.0.3:0": {{VIP: vip, Destination: at("10.2.0.3:0")}},
	} {
		says(t, NewFakeServer().Set(services), want)
	}
}

func says(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// The fakes move and end connections as the real ones do.
func TestFakes(t *testing.T) {
	client, server := NewFakeClient(), NewFakeServer()
	e := families["IPv4"]
	flow := Flow{User: at("10.1.0.7:40001"), VIP: e.vip}
	cookie := wire.Cookie{1, 2, 3}
	client.Open(Connection{Flow: flow, Tag: 7, Cookie: cookie, Destination: e.s1})
	if err := server.Adopt(3, Held{Tag: 7, Cookie: cookie, Sequence: 1, Destination: e.s2}); err != nil {
		t.Fatal(err)
	}
	if err := client.SetDestination(flow, cookie, e.s2, 1); err != nil {
		t.Fatal(err)
	}
	if c, err := client.Connection(flow); err != nil || c.Destination != e.s2 || c.Before != e.s1 || c.Moves != 1 || c.Sequence != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if err := client.SetDestination(flow, cookie, e.s1, 1); !errors.Is(err, ErrOld) {
		t.Errorf("the same sequence again: %v", err)
	}
	for range 2 {
		server.Hear(3, flow)
	}
	if h := <-server.Heard(); h != (Heard{Flow: flow, Tag: 7, Cookie: cookie, Sequence: 1}) || len(server.Heard()) != 0 {
		t.Errorf("heard %+v and %d more", h, len(server.Heard()))
	}
	client.End(flow)
	server.End(3)
	if _, err := client.Connection(flow); !errors.Is(err, ErrGone) {
		t.Errorf("a connection that has ended: %v", err)
	}
	if _, err := server.Held(3); !errors.Is(err, ErrGone) {
		t.Errorf("a socket that is closed: %v", err)
	}
	client.Close(false)
	server.Close(false)
	if err := errors.Join(client.Set(nil), server.Set(nil)); !errors.Is(err, errClosed) {
		t.Errorf("set after close: %v", err)
	}
	if _, ok := <-client.Changes(); ok {
		t.Error("a change after close")
	}
}
