package flows

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/handover"
	"github.com/manycast/manycast/lbd/internal/mover"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

var (
	front = netip.MustParseAddrPort("192.0.2.80:80")
	start = time.Unix(1000, 0)
)

func userOf(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 4711)
}

func flowOf(i int) handover.Flow { return handover.Flow{Local: front, Remote: userOf(i)} }

// allocation gives even users to one server, odd ones to another.
func allocation(number uint64, even, odd string) alloc.Allocation {
	servers := []string{"s1", "s2", "s3"}
	index := map[string]uint16{"s1": 0, "s2": 1, "s3": 2}
	return alloc.Allocation{
		Epoch: epoch.Epoch{Term: 1, Number: number}, Slots: alloc.Slots{By: alloc.Suffix, Bits: 1}, Servers: servers,
		Owner: []uint16{index[even], index[odd]}, Standby: []uint16{index[odd], index[even]},
	}
}

// fakeMover has what a test says.
type fakeMover struct {
	status  mover.Status
	fetched []handover.Flow
	fail    error

	cancelled []string
}

func (m *fakeMover) Status(context.Context) (mover.Status, error) { return m.status, m.fail }

func (m *fakeMover) Fetch(_ context.Context, _ string, flows []handover.Flow) error {
	m.fetched = append(m.fetched, flows...)
	return m.fail
}

func (m *fakeMover) Cancel(_ context.Context, service string) (int, error) {
	m.cancelled = append(m.cancelled, service)
	return 7, m.fail
}

func (m *fakeMover) Counters() mover.Counters {
	c := mover.Counters{Given: 4, Taken: 2, Bytes: 4096, Stayed: map[handover.Reason]uint64{handover.Late: 3}}
	for _, bytes := range []uint64{100, 70, 3856, 70} {
		c.Sizes.Add(bytes)
	}
	return c
}

// newTask is of s1, which has even users now, and the connections of n users.
func newTask(n int) (*Task, *fakeMover) {
	m := &fakeMover{}
	t := New(Config{
		Name: "s1", Mover: m,
		Connected: func(_ context.Context, vips []netip.Addr, _ []dataplane.Port) (users []netip.AddrPort, err error) {
			for i := range n {
				if vips[0] == front.Addr() {
					users = append(users, userOf(i))
				}
			}
			return users, nil
		},
		Totals: []func() []Counter{func() []Counter { return []Counter{{"forward", "out", "", 7}} }},
	})
	before, now := allocation(1, "s1", "s1"), allocation(2, "s1", "s2")
	now.Trail = alloc.Follow(before, now, alloc.Holders{"s1": {}}, nil)
	web := service.Service{
		Name: "web", VIP: front.Addr(), Ports: []service.Port{{Proto: "tcp", Number: 80}, {Proto: "udp", Number: 80}}, Slots: now.Slots,
		Handover: service.Handover{Strategies: []service.Strategy{service.Transfer, service.Forward}},
	}
	mail := web
	mail.Name, mail.VIP = "mail", netip.MustParseAddr("192.0.2.25")
	t.Set([]mover.View{{Service: mail}, {Service: web, Allocation: now}})
	return t, m
}

func (t *Task) mustList(test *testing.T, now time.Time, r *handoverv1.ListRequest) *handoverv1.FlowPage {
	test.Helper()
	a, err := t.Answer(now, &handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_List{List: r}})
	if err != nil {
		test.Fatal(err)
	}
	return a.GetList()
}

// text is what a page says in short.
func text(p *handoverv1.FlowPage) string {
	var out []string
	for _, f := range p.GetFlows() {
		flow, _ := handover.DecodeFlow(f.GetFlow())
		line := fmt.Sprintf("%s %s %s", flow.Remote.Addr(), strings.TrimPrefix(f.GetState().String(), "FLOW_STATE_"), f.GetOwner())
		if n := f.GetUntil().GetNumber(); n > 0 {
			line += fmt.Sprintf(" until %d", n)
		}
		if f.GetPeer() != "" {
			line += fmt.Sprintf(" %s %s %d ms", f.GetPeer(), f.GetStep(), f.GetStepMs())
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

func TestListSaysWhatConnectionsAre(t *testing.T) {
	task, m := newTask(4)
	m.status.Giving = []handover.Status{{Transfer: handover.Transfer{Flow: flowOf(3)}, Peer: "s2", Step: handover.Sent, Since: start.Add(-3 * time.Millisecond)}}
	m.status.Taking = []handover.Status{{Transfer: handover.Transfer{Flow: flowOf(8)}, Peer: "s3", Step: handover.Held, Since: start}}
	const own0, kept1, own2 = "10.1.0.0 OWN s1", "10.1.0.1 KEPT s2 until 1", "10.1.0.2 OWN s1"
	const moving, held = "10.1.0.3 MOVING s2 until 1 s2 sent 3 ms", "10.1.0.8 HELD s1 s3 held 0 ms"
	states := func(s ...handoverv1.FlowState) []handoverv1.FlowState { return s }
	for _, tt := range []struct {
		request *handoverv1.ListRequest
		want    string
	}{
		{&handoverv1.ListRequest{}, strings.Join([]string{own0, kept1, own2, moving, held}, "; ")},
		{&handoverv1.ListRequest{Service: "mail"}, ""},
		{&handoverv1.ListRequest{User: "10.1.0.2"}, own2},
		{&handoverv1.ListRequest{User: "10.1.0.2:4711"}, own2},
		{&handoverv1.ListRequest{User: "10.1.0.2:4712"}, ""},
		{&handoverv1.ListRequest{User: "10.1.0.2/31", Service: "web"}, own2 + "; " + moving},
		{&handoverv1.ListRequest{States: states(handoverv1.FlowState_FLOW_STATE_KEPT)}, kept1},
		{&handoverv1.ListRequest{States: states(handoverv1.FlowState_FLOW_STATE_MOVING, handoverv1.FlowState_FLOW_STATE_HELD)}, moving + "; " + held},
	} {
		if got := text(task.mustList(t, start, tt.request)); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.request, got, tt.want)
		}
	}
}

func TestListsComeInPages(t *testing.T) {
	const n = 2*pageRows + 10
	task, _ := newTask(n)
	first := task.mustList(t, start, &handoverv1.ListRequest{})
	seen, pages, after := len(first.GetFlows()), 1, first.GetNext()
	for after != "" {
		p := task.mustList(t, start, &handoverv1.ListRequest{After: after})
		seen, pages, after = seen+len(p.GetFlows()), pages+1, p.GetNext()
	}
	if seen != n || pages != 3 || first.GetAll() != n || len(task.lists.all) != 0 {
		t.Errorf("%d of %d connections on %d pages, %d lists are kept", seen, first.GetAll(), pages, len(task.lists.all))
	}
	if body, err := proto.Marshal(first); err != nil || len(body) > 1<<19 {
		t.Errorf("a page of %d bytes, %v", len(body), err)
	}

	first = task.mustList(t, start, &handoverv1.ListRequest{})
	for range maxLists {
		task.mustList(t, start, &handoverv1.ListRequest{})
	}
	refused(t, task, &handoverv1.ListRequest{After: first.GetNext()}, "not kept any more")
	late := task.mustList(t, start, &handoverv1.ListRequest{})
	task.lists.sweep(start.Add(listStays + time.Second))
	refused(t, task, &handoverv1.ListRequest{After: late.GetNext()}, "not kept any more")
}

func refused(t *testing.T, task *Task, r *handoverv1.ListRequest, why string) {
	t.Helper()
	_, err := task.Answer(start, &handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_List{List: r}})
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("%v: %v, want %q", r, err, why)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	task, m := newTask(1)
	refused(t, task, &handoverv1.ListRequest{User: "somebody"}, "want an address")
	refused(t, task, &handoverv1.ListRequest{Service: "dns"}, "no service of this server")
	for _, after := range []string{"x", "1", "1.-4", "99.0", "1.99999999999999999999"} {
		refused(t, task, &handoverv1.ListRequest{After: after}, "page")
	}
	bad := []*handoverv1.Flow{{Local: []byte{1}, Remote: []byte{2}}}
	for name, r := range map[string]*handoverv1.FlowsRequest{
		"nothing":       {},
		"no allocation": {About: &handoverv1.FlowsRequest_Cost{Cost: &handoverv1.CostRequest{}}},
		"bad flow":      {About: &handoverv1.FlowsRequest_Fetch{Fetch: &handoverv1.FetchRequest{Service: "web", Flows: bad}}},
		"too many":      {About: &handoverv1.FlowsRequest_Fetch{Fetch: &handoverv1.FetchRequest{Flows: make([]*handoverv1.Flow, maxFetched+1)}}},
	} {
		if _, err := task.Answer(start, r); err == nil {
			t.Errorf("%s is answered", name)
		}
	}
	m.fail = errors.New("it ends")
	refused(t, task, &handoverv1.ListRequest{}, "it ends")
	task.cfg.Mover = nil
	if _, err := task.Answer(start, &handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_Fetch{Fetch: &handoverv1.FetchRequest{}}}); err == nil {
		t.Error("fetched without a mover")
	}
}

func TestStatusAndCost(t *testing.T) {
	task, m := newTask(10)
	task.Count(func() []Counter { return []Counter{{"reset", "closed", "moved", 9}} })
	m.status.Batches = []handover.Progress{{BatchID: handover.BatchID{Taker: "s2", Service: "web"}, Wanted: 3, Given: 2, Bytes: 2048}}
	a, err := task.Answer(start, &handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_Status{Status: &handoverv1.StatusRequest{}}})
	if err != nil {
		t.Fatal(err)
	}
	s := a.GetStatus()
	if web := s.GetServices()[1]; a.GetServer() != "s1" || web.GetOwn() != 5 || web.GetKept() != 5 || web.GetHandover()[0] != "transfer" {
		t.Errorf("%v", s)
	}
	counters := map[string]uint64{}
	for _, c := range s.GetCounters() {
		counters[c.GetStrategy()+" "+c.GetName()+" "+c.GetReason()] = c.GetValue()
	}
	if counters["forward out "] != 7 || counters["reset closed moved"] != 9 || counters["transfer given "] != 4 || counters["transfer stayed "+handover.Late.String()] != 3 {
		t.Errorf("counters %v", counters)
	}
	if b := s.GetBatches(); len(b) != 1 || b[0].GetTaker() != "s2" || b[0].GetWanted() != 3 {
		t.Errorf("batches %v", b)
	}

	if got := fmt.Sprint(s.GetStateSizes(), s.GetStateMax()); strings.ReplaceAll(got, "  ", " ") != "[up_to:72 count:2 up_to:104 count:1 up_to:4096 count:1] 3856" {
		t.Errorf("sizes of states %s", got)
	}

	// Even users go to s3; odd ones, of which connections are here still, go on being s2's.
	next := alloc.ToProto("web", allocation(3, "s3", "s2"))
	a, err = task.Answer(start, &handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_Cost{Cost: &handoverv1.CostRequest{Next: next}}})
	if err != nil {
		t.Fatal(err)
	}
	c := a.GetCost()
	if len(c.GetTo()) != 1 || c.GetTo()[0].GetServer() != "s3" || c.GetTo()[0].GetConnections() != 5 || c.GetTo()[0].GetUsers() != 5 ||
		c.GetKept() != 5 || c.GetStates() != 4 || c.GetStateBytes() != 4096 {
		t.Errorf("%v", c)
	}
}

func TestCancel(t *testing.T) {
	task, m := newTask(1)
	request := &handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_Cancel{Cancel: &handoverv1.CancelRequest{Service: "web"}}}
	if a, err := task.Answer(start, request); err != nil || a.GetCancel().GetStayed() != 7 || !slices.Equal(m.cancelled, []string{"web"}) {
		t.Errorf("%v, %v: cancelled %v", a, err, m.cancelled)
	}
	m.fail = errors.New("it ends")
	if _, err := task.Answer(start, request); !errors.Is(err, m.fail) {
		t.Errorf("%v", err)
	}
	task.cfg.Mover = nil
	if a, err := task.Answer(start, request); err != nil || a.GetCancel().GetStayed() != 0 {
		t.Errorf("nothing moves: %v, %v", a, err)
	}
}

// fakeBus keeps the handler.
type fakeBus struct {
	subject string
	handle  func(bus.Msg) (proto.Message, error)
	ready   chan struct{}
}

func (b *fakeBus) Handle(subject string, handle func(bus.Msg) (proto.Message, error)) (func(), error) {
	b.subject, b.handle = subject, handle
	close(b.ready)
	return func() {}, nil
}

func TestRunAnswersOnTheBus(t *testing.T) {
	task, m := newTask(3)
	b := &fakeBus{ready: make(chan struct{})}
	task.cfg.Bus, task.cfg.Name = b, "s1.site"
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- task.Run(ctx) }()
	<-b.ready
	body, err := proto.Marshal(&handoverv1.FlowsRequest{About: &handoverv1.FlowsRequest_Fetch{Fetch: &handoverv1.FetchRequest{
		Service: "web", Flows: []*handoverv1.Flow{handover.EncodeFlow(flowOf(2))},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.handle(bus.Msg{Data: body}); err != nil || b.subject != "lbd.flows.s1-site" || len(m.fetched) != 1 || m.fetched[0] != flowOf(2) {
		t.Errorf("%s: %v, fetched %v", b.subject, err, m.fetched)
	}
	if _, err := b.handle(bus.Msg{Data: []byte{0xff}}); err == nil {
		t.Error("what is no request is answered")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, r := range []*handoverv1.FlowsRequest{
		{About: &handoverv1.FlowsRequest_List{List: &handoverv1.ListRequest{User: "10.1.0.0/24", After: "1.5"}}},
		{About: &handoverv1.FlowsRequest_Cost{Cost: &handoverv1.CostRequest{Next: alloc.ToProto("web", allocation(3, "s3", "s2"))}}},
	} {
		body, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	task, _ := newTask(5)
	f.Fuzz(func(_ *testing.T, body []byte) {
		var r handoverv1.FlowsRequest
		if proto.Unmarshal(body, &r) == nil {
			_, _ = task.Answer(start, &r) // it does not fall
		}
	})
}
