package service_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func TestWhy(t *testing.T) {
	b := cmdtest.Start(t)
	b.Refused([]string{"there is no service"}, "service", "why", "198.51.100.7")
	b.Service(cmdtest.Web)
	b.Refused([]string{"nothing is allocated yet"}, "service", "why", "198.51.100.7")
	a := cmdtest.World(b)
	b.Put(bus.BucketMoves, "web", &allocv1.Moves{Moves: []*allocv1.Move{
		{Service: "web", Epoch: &allocv1.Epoch{Term: 4, Number: 1}, Reason: "s9 left"},
		{Service: "web", Epoch: &allocv1.Epoch{Term: 5, Number: 1}, Reason: "first allocation", AtUnixNano: time.Now().Add(-time.Minute).UnixNano()},
	}})
	user := netip.MustParseAddr("198.51.100.7")
	want, err := a.Why(user)
	if err != nil {
		t.Fatal(err)
	}
	cmdtest.Golden(t, "why", b.OK("service", "why", "198.51.100.7"))

	var got struct {
		Server, Standby, Portion, Epoch, Reason, Health string
		JoinedAs                                        portion.Portion `json:"joined_as"`
		Slot                                            int
		Since                                           time.Time
	}
	if err := json.Unmarshal([]byte(b.OK("service", "why", "web", "198.51.100.7", "-o", "json")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Server != want.Owner || got.Standby != want.Standby || got.Slot != want.Slot || got.Epoch != "5.1" || got.Health != "healthy" ||
		got.Reason != "first allocation" || !got.JoinedAs.Contains(user) || time.Since(got.Since) < 30*time.Second {
		t.Fatalf("%+v, want %+v", got, want)
	}

	others := []alloc.Server{}
	for _, name := range []string{"s1", "s2", "s3"} {
		if name != want.Owner {
			others = append(others, cmdtest.Alive(name, 1))
		}
	}
	b.Allocate("web", a, b.Next(a, 2, others...))
	cmdtest.Golden(t, "why-next", b.OK("service", "why", "198.51.100.7"))

	b.Refused([]string{"not an IPv4 address"}, "service", "why", "web", "2001:db8::1")
	b.Refused([]string{"not an address"}, "service", "why", "web", "me")
	b.Refused([]string{"web"}, "service", "why", "wbe", "198.51.100.7")
	b.Service("name: api\nvip: 192.0.2.80\ngroup: 239.80.80.81\nports: [tcp/8080]\n")
	b.Refused([]string{"api, web"}, "service", "why", "198.51.100.7")
}

func TestWhyOfStaticService(t *testing.T) {
	b := cmdtest.Start(t)
	b.Service("name: fixed\nvip: 192.0.2.90\ngroup: 239.80.80.90\nports: [udp/53]\nservers:\n" +
		"- {name: s1, address: 10.0.1.1, portions: [0.0.0.0/0.0.0.1], deny: [198.51.100.8]}\n" +
		"- {name: s2, address: 10.0.2.1, portions: [0.0.0.1/0.0.0.1, 198.51.100.8]}\n")
	cmdtest.Golden(t, "why-static", b.OK("service", "why", "198.51.100.7"))
	if out := b.OK("service", "why", "198.51.100.8"); !strings.Contains(out, "s2, 10.0.2.1") || !strings.Contains(out, "198.51.100.8, static") {
		t.Errorf("a sender that s1 denies:\n%s", out)
	}
	if out := b.OK("allocation", "show", "fixed", "--portions"); !strings.Contains(out, "denied") {
		t.Errorf("allocation show does not tell of the denied sender:\n%s", out)
	}
	b.Refused([]string{"no server"}, "service", "why", "2001:db8::1")
}

// With mode tags what stands in for users of IPv6, and for connections of those that are split, chooses the slot.
func TestWhyByWhatStandsIn(t *testing.T) {
	b := cmdtest.Start(t)
	a := cmdtest.World(b)
	b.Service("name: web\nvip: 192.0.2.80\nvip6: 2001:db8::80\nmode: tags\nports: [tcp/80]\nslots: suffix/4\nsplit: [203.0.113.0/24, 2001:db8:77::/48]\n")
	cmdtest.Golden(t, "why-split", b.OK("service", "why", "203.0.113.7:40000"))
	cmdtest.Golden(t, "why-split-no-port", b.OK("service", "why", "203.0.113.7"))
	cmdtest.Golden(t, "why-ipv6", b.OK("service", "why", "2001:db8:1::1"))
	cmdtest.Golden(t, "show-split", b.OK("service", "show", "web"))
	for source, by := range map[string]netip.Addr{
		"203.0.113.7:40000":       steer.Flow(netip.MustParseAddrPort("203.0.113.7:40000")),
		"203.0.113.7":             netip.MustParseAddr("203.0.113.7"),
		"198.51.100.7:40000":      netip.MustParseAddr("198.51.100.7"),
		"[2001:db8:77::1]:40000":  steer.Flow(netip.MustParseAddrPort("[2001:db8:77::1]:40000")),
		"2001:db8:77::1":          steer.Standin(netip.MustParseAddr("2001:db8:77::1")),
		"[2001:db8:78::1]:40000":  steer.Standin(netip.MustParseAddr("2001:db8:78::1")),
		"[::ffff:203.0.113.7]:80": steer.Flow(netip.MustParseAddrPort("203.0.113.7:80")),
	} {
		want, err := a.Why(by)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Server string
			Slot   int
		}
		if err := json.Unmarshal([]byte(b.OK("service", "why", "web", source, "-o", "json")), &got); err != nil {
			t.Fatal(err)
		}
		if got.Server != want.Owner || got.Slot != want.Slot {
			t.Errorf("%s: %+v, want %+v", source, got, want)
		}
	}
	b.Refused([]string{"not an address", "with a port"}, "service", "why", "web", "203.0.113.7:0")
	b.Service("name: web\nvip: 192.0.2.80\nmode: tags\nports: [tcp/80]\nslots: suffix/4\n")
	b.Refused([]string{"it has no vip6"}, "service", "why", "web", "2001:db8::1")
}
