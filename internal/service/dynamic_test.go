package service

import (
	"net/netip"
	"strings"
	"testing"
)

func TestDynamicRoundTrips(t *testing.T) {
	services, err := Parse([]byte(web + "dynamic: true\n---\n" + replace(replace(replace(replace(web, "80.80.80", "81.81.81"), "name: web", "name: api"), "192.0.2.80", "192.0.2.81"), "tcp/80", "tcp/81") +
		"dynamic: {destinations: [10.2.0.0/24, 2001:db8:2::/64]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	one, two := services[0].Dynamic, services[1].Dynamic
	if !one.On || len(one.Destinations) != 0 || !one.At(netip.MustParseAddr("203.0.113.9")) {
		t.Errorf("%+v", one)
	}
	if !two.On || !two.At(netip.MustParseAddr("10.2.0.9")) || two.At(netip.MustParseAddr("10.3.0.9")) || !two.At(netip.MustParseAddr("2001:db8:2::1")) {
		t.Errorf("%+v", two)
	}
	roundTrip(t, services)
	if text, err := Marshal(services[0]); err != nil || !strings.Contains(string(text), "dynamic: true\n") {
		t.Errorf("%s, %v", text, err)
	}
	for _, off := range []string{"", "dynamic: false\n"} {
		services, err := Parse([]byte(web + off))
		if err != nil || services[0].Dynamic.On || services[0].Dynamic.At(netip.MustParseAddr("10.2.0.9")) {
			t.Errorf("%q: %+v, %v", off, services, err)
		}
	}
}

func TestDynamicRefused(t *testing.T) {
	other := replace(replace(replace(web, "80.80.80", "81.81.81"), "name: web", "name: api"), "192.0.2.80", "192.0.2.81")
	for name, c := range map[string]struct{ text, want string }{
		"key":     {web + "dynamic: {destination: [10.2.0.0/24]}", "no key destination"},
		"word":    {web + "dynamic: often", "cannot unmarshal"},
		"prefix":  {web + "dynamic: {destinations: [10.2.0.0]}", "want a prefix"},
		"bits":    {web + "dynamic: {destinations: [10.2.0.1/24]}", "without bits behind its length"},
		"static":  {static + "dynamic: true", "it takes a leader"},
		"udp":     {replace(web, "tcp/80, udp/53", "udp/53") + "dynamic: true", "no port of TCP"},
		"a port":  {web + "dynamic: true\n---\n" + other + "dynamic: true", "services web and api are dynamic and both have port tcp/80"},
		"the VIP": {web + "dynamic: true\n---\n" + replace(replace(other, "192.0.2.81", "192.0.2.80"), "tcp/80, udp/53", "tcp/443"), "have the same vip"},
	} {
		if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
