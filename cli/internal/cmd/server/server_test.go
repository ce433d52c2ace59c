package server_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/portion"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

func wish(b *cmdtest.Bus, key string) (*allocv1.Operator, bool) {
	p := &allocv1.Operator{}
	return p, b.Get(bus.BucketOperator, key, p)
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("never: " + what)
		}
	}
}

func TestListOfLoads(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	b.RegisterLoad("web", "s1", "10.0.1.1", 2, alloc.Load{
		CPU: 0.25, Connections: 120, Accepts: 12.5, Bytes: 1e6, Queue: 2, Hot: []alloc.Hot{{Portion: portion.MustParse("0.0.0.3/0.0.0.255"), Share: 0.2}},
	})
	out := b.OK("server", "list", "--load")
	for _, words := range []string{"CONNECTIONS", "120", "12.5", "1000000", "0.25"} {
		if !strings.Contains(out, words) {
			t.Errorf("no %s in\n%s", words, out)
		}
	}
	if out = b.OK("server", "list", "-o", "json"); !strings.Contains(out, `"portion": "0.0.0.3/0.0.0.255"`) || strings.Count(out, `"accepts_per_second"`) != 1 {
		t.Errorf("loads of those who say them are in\n%s", out)
	}
}

func TestList(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	b.Service("name: api\nvip: 192.0.2.80\ngroup: 239.80.80.81\nports: [tcp/8080]\n")
	b.Register("api", "s1", "10.0.1.1", 1, true)
	b.Register("web", "s3", "10.0.3.1", 1, false)
	b.Register("gone", "s9", "10.0.9.1", 1, true)
	weight := uint32(7)
	b.Put(bus.BucketOperator, "web.s2", &allocv1.Operator{Drained: true, Weight: &weight})
	r := b.Run("server", "list")
	if r.Error != nil || !strings.Contains(r.Err, "s9 (10.0.9.1) serves \"gone\"") {
		t.Fatal(r.Error, r.Err)
	}
	cmdtest.Golden(t, "list", r.Out)
	cmdtest.Golden(t, "list-api", b.OK("server", "list", "api"))
	b.Refused([]string{"api, web"}, "server", "list", "wbe")

	var rows []struct {
		Service, Name, Health string
		Weight                int
		Own                   int `json:"own_weight"`
		Drained               bool
		Share                 float64
		LastSeen              time.Time `json:"last_seen"`
	}
	if err := json.Unmarshal([]byte(b.OK("server", "list", "web", "-o", "json")), &rows); err != nil {
		t.Fatal(err)
	}
	s2 := rows[1]
	if s2.Name != "s2" || s2.Weight != 7 || s2.Own != 1 || !s2.Drained || s2.Share != 0.25 || time.Since(s2.LastSeen) > time.Minute {
		t.Fatalf("%+v", s2)
	}
}

func TestServerThatFallsSilent(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	b.Silence("web", "s2")
	until(t, "s2 is silent", func() bool { return strings.Contains(b.OK("server", "list"), "silent") })
	if out := b.OK("allocation", "rebalance", "--dry-run"); !strings.Contains(out, "is silent") {
		t.Fatal(out)
	}
}

func TestDampenedServer(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	b.Put(bus.BucketMoves, "web", &allocv1.Moves{Dampened: []*allocv1.Dampened{
		{Server: "s1", UntilUnixNano: time.Now().Add(-time.Second).UnixNano()},
		{Server: "s2", UntilUnixNano: time.Now().Add(time.Hour).UnixNano()},
		{Server: "s9", UntilUnixNano: time.Now().Add(time.Hour).UnixNano()},
	}})
	if out := b.OK("server", "list"); strings.Count(out, "dampened until") != 1 || strings.Contains(out, "s9") {
		t.Error(out)
	}
}

func TestDrainAndUndrain(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	cmdtest.Golden(t, "drain", b.OK("server", "drain", "web/s2"))
	if p, _ := wish(b, "web.s2"); !p.GetDrained() {
		t.Fatal("not drained")
	}
	b.OK("server", "weight", "s2", "3")
	if p, _ := wish(b, "web.s2"); !p.GetDrained() || p.GetWeight() != 3 {
		t.Fatalf("the weight replaced the drain: %v", p)
	}
	if out := b.OK("server", "drain", "s2"); !strings.Contains(out, "unchanged") {
		t.Fatal(out)
	}
	b.OK("server", "undrain", "s2")
	b.OK("server", "weight", "web/s2", "default")
	if p, ok := wish(b, "web.s2"); ok {
		t.Fatalf("nothing is wanted of s2, but there is %v", p)
	}
	b.OK("server", "drain", "s2") // again, after the entry was removed

	b.Refused([]string{`"s7" is not there`, "web/s1, web/s2, web/s3"}, "server", "drain", "s7")
	b.Refused([]string{`service "api" is not there`, "web"}, "server", "drain", "api/s1")
	for _, bad := range []string{"-1", "10001", "heavy", "99999999999"} {
		b.Refused([]string{"0 to 10000"}, "server", "weight", "s1", "--", bad)
	}
}

// host is the tdpd on s2's host, which goes one phase on each time it is asked. It notes whether s2 was drained when it was told to go, or to come.
type host struct {
	mu      sync.Mutex
	b       *cmdtest.Bus
	phases  []string
	changes []string
}

func (h *host) answer(r *tdpdv1.Request) *tdpdv1.Answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := &tdpdv1.Answer{Router: "h2", About: &tdpdv1.Answer_Status{Status: &tdpdv1.Status{}}}
	a := r.GetAnnounce()
	if a == nil {
		return out
	}
	drained := func() bool { p, _ := wish(h.b, "web.s2"); return p.GetDrained() }
	switch {
	case a.GetDrain():
		h.phases = []string{"leaving", "withdrawn", "out"}
		h.changes = append(h.changes, fmt.Sprintf("out, drained %v", drained()))
	case a.GetBack():
		h.phases = []string{"entering", "in"}
		h.changes = append(h.changes, fmt.Sprintf("in, drained %v", drained()))
	case len(h.phases) > 1:
		h.phases = h.phases[1:]
	}
	out.About = &tdpdv1.Answer_Announce{Announce: &tdpdv1.Announced{
		Phase: h.phases[0], Waits: "neighbors to be told", LeftMs: 1000, Drained: h.phases[0] == "out", Server: true, Hosts: []string{"10.0.2.1"},
	}}
	return out
}

func (h *host) told() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.changes = nil }()
	return h.changes
}

// TestHosts: a server's host withdraws its route after its users have gone, and announces it before they come back; who serves another service stays.
func TestHosts(t *testing.T) {
	b := cmdtest.Start(t)
	prev := cmdtest.World(b)
	h := &host{b: b, phases: []string{"in"}}
	c, err := bus.Connect(bus.Config{URLs: []string{b.URL()}, Credentials: filepath.Join(filepath.Dir(b.Credentials()), "tdpd.nk"), Name: "h2", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for _, subject := range []string{"tdpd.ask", bus.Of("tdpd.ask", "h2")} {
		if _, err := c.Handle(subject, func(m bus.Msg) (proto.Message, error) {
			r := &tdpdv1.Request{}
			if err := proto.Unmarshal(m.Data, r); err != nil {
				return nil, err
			}
			return h.answer(r), nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the router answers", func() bool { return b.Run("director", "show", "h2").Error == nil })

	go func() {
		until(t, "s2 is to be drained", func() bool { p, _ := wish(b, "web.s2"); return p.GetDrained() })
		b.Allocate("web", b.Next(prev, 2, cmdtest.Alive("s1", 2), cmdtest.Alive("s3", 1)), alloc.Allocation{})
	}()
	r := b.Run("server", "drain", "web/s2", "--wait")
	if r.Error != nil || !strings.Contains(r.Err, "h2: leaving, waits for neighbors to be told") || !strings.Contains(r.Err, "h2: withdrawn") || !strings.Contains(r.Out, "in epoch 5.2") {
		t.Fatal(r.Error, r.Err, r.Out)
	}
	if got := h.told(); !slices.Equal(got, []string{"out, drained true"}) {
		t.Errorf("%v", got)
	}
	b.OK("server", "undrain", "web/s2")
	if got := h.told(); !slices.Equal(got, []string{"in, drained true"}) {
		t.Errorf("%v", got)
	}
	b.OK("server", "drain", "web/s2")
	if got := h.told(); len(got) != 0 {
		t.Errorf("without --wait: %v", got)
	}

	b.Service("name: api\nvip: 192.0.2.80\ngroup: 239.80.80.81\nports: [tcp/8080]\n")
	b.Register("api", "s2", "10.0.2.1", 1, true)
	r = b.Run("server", "drain", "web/s2", "--wait")
	if r.Error != nil || !strings.Contains(r.Err, "h2: goes on announcing 10.0.2.1, which serves api/s2") {
		t.Error(r.Error, r.Err)
	}
	if got := h.told(); len(got) != 0 {
		t.Errorf("it serves still, and has to go: %v", got)
	}
}

func TestNameAloneIsTheServerInAllItsServices(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	b.Service("name: api\nvip: 192.0.2.80\ngroup: 239.80.80.81\nports: [tcp/8080]\n")
	b.Register("api", "s1", "10.0.1.1", 1, true)
	b.OK("server", "drain", "s1")
	for _, key := range []string{"api.s1", "web.s1"} {
		if p, _ := wish(b, key); !p.GetDrained() {
			t.Fatalf("%s is not drained", key)
		}
	}
}

func TestWaitForTheLeader(t *testing.T) {
	b := cmdtest.Start(t)
	a := cmdtest.World(b)
	b.Refused([]string{"not taken in yet", "director d1", "--timeout"}, "server", "weight", "s3", "3", "--wait", "--timeout", "2s")
	b.OK("server", "weight", "s3", "default")

	done := make(chan cmdtest.Result, 1)
	go func() { done <- b.Run("server", "drain", "web/s2", "--wait", "--timeout", "20s", "-o", "json") }()
	until(t, "the wish is on the bus", func() bool { _, ok := wish(b, "web.s2"); return ok })
	next := b.Next(a, 2, cmdtest.Alive("s1", 2), cmdtest.Alive("s3", 1))
	b.Allocate("web", a, next)
	b.Allocate("web", next, alloc.Allocation{})
	r := <-done
	if r.Error != nil {
		t.Fatal(r.Error)
	}
	var rows []map[string]any
	if err := json.Unmarshal([]byte(r.Out), &rows); err != nil {
		t.Fatal(err)
	}
	if got := rows[0]; got["taken_in"] != true || got["epoch"] != "5.2" || got["slots"] != 0.0 || got["drained"] != true {
		t.Fatalf("%v", got)
	}
}

func TestNoEffectIsTold(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	b.Service(strings.Replace(cmdtest.Web, "weighted", "equal", 1))
	if r := b.Run("server", "weight", "s1", "3"); !strings.Contains(r.Err, "policy is equal") {
		t.Fatal(r)
	}
	b.OK("server", "drain", "s1")
	b.OK("server", "drain", "s2")
	if r := b.Run("server", "drain", "s3"); r.Error != nil || !strings.Contains(r.Err, "the last allocation stays") {
		t.Fatal(r)
	}
	b.Refused([]string{"web/s3 still has 25.0% of the users"}, "server", "drain", "s3", "--wait")
	b.Register("web", "s3", "10.0.3.1", 1, false)
	if r := b.Run("server", "undrain", "s3"); !strings.Contains(r.Err, "unhealthy") && !strings.Contains(r.Err, "the last allocation stays") {
		t.Fatal(r)
	}
}

func TestNobodyLeads(t *testing.T) {
	b := cmdtest.Start(t)
	b.Service(cmdtest.Web)
	b.Register("web", "s1", "10.0.1.1", 1, true)
	b.Refused([]string{"no director leads"}, "server", "weight", "s1", "3", "--wait", "--timeout", "2s")
}

func TestCompletion(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	b.Service("name: api\nvip: 192.0.2.80\ngroup: 239.80.80.81\nports: [tcp/8080]\n")
	b.Register("api", "s1", "10.0.1.1", 1, true)
	lines := func(args ...string) []string {
		out, _, _ := strings.Cut(b.Complete(args...), ":")
		return strings.Fields(out)
	}
	if got := lines("server", "drain", ""); !slices.Equal(got, []string{"api/s1", "web/s1", "s1", "web/s2", "web/s3"}) {
		t.Fatal(got)
	}
	if got := lines("allocation", "show", ""); !slices.Equal(got, []string{"api", "web"}) {
		t.Fatal(got)
	}
	if got := lines("server", "weight", "web/s1", ""); len(got) != 0 {
		t.Fatal(got)
	}
	began := time.Now()
	r := cmdtest.Run(t, "", "__complete", "--bus", "nats://127.0.0.1:1", "--credentials", b.Credentials(), "server", "drain", "")
	if took := time.Since(began); r.Error != nil || took > 3*time.Second {
		t.Fatalf("completion without a bus: %v, %v", r.Error, took)
	}
}
