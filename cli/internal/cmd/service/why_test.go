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
