package flow_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/service"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
	servicev1 "github.com/manycast/manycast/proto/service/v1"
)

// agent answers on the bus as an lbd agent does, with connections that a test gives it.
type agent struct {
	name string

	mu      sync.Mutex
	flows   []*handoverv1.LiveFlow
	page    int // connections on a page
	fetches []*handoverv1.FetchRequest
	onFetch func()
}

func startAgent(t *testing.T, b *cmdtest.Bus, name string, flows ...*handoverv1.LiveFlow) *agent {
	t.Helper()
	a := &agent{name: name, flows: flows, page: 2}
	b.Agent(name, a.answer)
	return a
}

func (a *agent) answer(r *handoverv1.FlowsRequest) *handoverv1.FlowsAnswer {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := &handoverv1.FlowsAnswer{Server: a.name}
	switch about := r.GetAbout().(type) {
	case *handoverv1.FlowsRequest_List:
		out.About = &handoverv1.FlowsAnswer_List{List: a.list(about.List)}
	case *handoverv1.FlowsRequest_Fetch:
		a.fetches = append(a.fetches, about.Fetch)
		if a.onFetch != nil {
			a.onFetch()
		}
		out.About = &handoverv1.FlowsAnswer_Fetch{Fetch: &handoverv1.Fetched{}}
	case *handoverv1.FlowsRequest_Cancel:
		out.About = &handoverv1.FlowsAnswer_Cancel{Cancel: &handoverv1.Cancelled{Stayed: uint64(len(a.flows))}}
	case *handoverv1.FlowsRequest_Status:
		out.About = &handoverv1.FlowsAnswer_Status{Status: &handoverv1.FlowsStatus{
			Services:   []*handoverv1.ServiceFlows{{Service: "web", Handover: []string{"transfer", "forward"}, Own: 10, Kept: 2}},
			Batches:    []*handoverv1.Batch{{Taker: "s2", Service: "web", Epoch: &allocv1.Epoch{Term: 5, Number: 1}, Wanted: 1, Moving: 2, Given: 3}},
			Counters:   []*handoverv1.Counter{{Strategy: "transfer", Name: "stayed", Reason: "late", Value: 4}, {Strategy: "forward", Name: "out", Value: 5}},
			StateSizes: []*handoverv1.StateSize{{UpTo: 288, Count: 3}, {UpTo: 5120, Count: 1}}, StateMax: 4711,
		}}
	}
	return out
}

func (a *agent) list(r *handoverv1.ListRequest) *handoverv1.FlowPage {
	var found []*handoverv1.LiveFlow
	for _, f := range a.flows {
		user := end(f.GetFlow().GetRemote())
		if (r.GetUser() == "" || r.GetUser() == user.String() || r.GetUser() == user.Addr().String()) && (len(r.GetStates()) == 0 || r.GetStates()[0] == f.GetState()) {
			found = append(found, f)
		}
	}
	from := 0
	if r.GetAfter() != "" {
		_, _ = fmt.Sscan(r.GetAfter(), &from)
	}
	p := &handoverv1.FlowPage{All: uint64(len(found)), Flows: found[from:min(from+a.page, len(found))]}
	if from+a.page < len(found) {
		p.Next = fmt.Sprint(from + a.page)
	}
	return p
}

func (a *agent) put(flows ...*handoverv1.LiveFlow) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flows = flows
}

func (a *agent) fetched() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.fetches)
}

func end(b []byte) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(b[:len(b)-2])
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[len(b)-2:]))
}

func bytesOf(text string) []byte {
	a := netip.MustParseAddrPort(text)
	return binary.BigEndian.AppendUint16(a.Addr().AsSlice(), a.Port())
}

func live(user string, state handoverv1.FlowState, owner string) *handoverv1.LiveFlow {
	f := &handoverv1.LiveFlow{
		Service: "web", Flow: &handoverv1.Flow{Local: bytesOf("192.0.2.80:80"), Remote: bytesOf(user)}, State: state, Owner: owner,
	}
	switch state {
	case handoverv1.FlowState_FLOW_STATE_KEPT:
		f.Until = &allocv1.Epoch{Term: 5, Number: 1}
	case handoverv1.FlowState_FLOW_STATE_MOVING:
		f.Peer, f.Step, f.StepMs = "s2", "sent", 12
	}
	return f
}

const (
	own    = handoverv1.FlowState_FLOW_STATE_OWN
	kept   = handoverv1.FlowState_FLOW_STATE_KEPT
	moving = handoverv1.FlowState_FLOW_STATE_MOVING
)

// world is web with transfer, in which users x.x.x.0 to 7 are mostly s1's.
func world(t *testing.T) (*cmdtest.Bus, alloc.Allocation) {
	b := cmdtest.Start(t)
	a := cmdtest.World(b)
	b.Service(cmdtest.Web + "handover: [transfer, forward]\n")
	return b, a
}

func TestListAndShow(t *testing.T) {
	b, _ := world(t)
	startAgent(t, b, "s1", live("203.0.113.1:1000", own, "s1"), live("203.0.113.2:1000", kept, "s2"), live("203.0.113.3:1000", moving, "s2"))
	startAgent(t, b, "s2", live("203.0.113.9:1000", own, "s2"), live("[2001:db8::9]:1000", own, "s2"))
	r := b.Run("flow", "list")
	if r.Error != nil || !strings.Contains(r.Err, "server s3: its agent does not answer") {
		t.Fatalf("%v %s", r.Error, r.Err)
	}
	cmdtest.Golden(t, "list", r.Out)
	cmdtest.Golden(t, "kept", b.OK("flow", "list", "--state", "kept", "--server", "s1"))
	var flows []struct{ Server, User, State, Owner, Until string }
	if err := json.Unmarshal([]byte(b.OK("flow", "list", "--service", "web", "--server", "s1", "-o", "json")), &flows); err != nil || len(flows) != 3 {
		t.Fatalf("%v, %v", flows, err)
	}
	if f := flows[1]; f.Server != "s1" || f.User != "203.0.113.2:1000" || f.State != "kept" || f.Owner != "s2" || f.Until != "5.1" {
		t.Errorf("%+v", f)
	}
	if r := b.Run("flow", "list", "--server", "s1", "--limit", "1"); r.Error != nil || strings.Count(r.Out, "\n") != 2 || !strings.Contains(r.Err, "1 of 3") {
		t.Errorf("%v\n%s%s", r.Error, r.Out, r.Err)
	}
	cmdtest.Golden(t, "show", b.OK("flow", "show", "203.0.113.3:1000"))
	b.Refused([]string{"no server that answers has a connection of 203.0.113.8"}, "flow", "show", "203.0.113.8")
	b.Refused([]string{"want an address"}, "flow", "show", "somebody")
	b.Refused([]string{"state", "moving"}, "flow", "list", "--server", "s1", "--state", "lost")
	b.Refused([]string{"does not answer"}, "flow", "list", "--server", "s3")
	b.Refused([]string{"s7", "not there"}, "flow", "list", "--server", "s7")
	b.Refused([]string{"mail", "not there"}, "flow", "list", "--service", "mail")
	if got := b.Complete("flow", "list", "--server", ""); !strings.Contains(got, "s1\ns2\ns3\n") {
		t.Errorf("completed %q", got)
	}
	if got := b.Complete("flow", "list", "--state", ""); !strings.Contains(got, "moving") {
		t.Errorf("completed %q", got)
	}
}

func TestStatus(t *testing.T) {
	b, _ := world(t)
	startAgent(t, b, "s1")
	cmdtest.Golden(t, "status", b.OK("flow", "status", "s1"))
	cmdtest.Golden(t, "counters", b.OK("flow", "status", "s1", "--counters"))
	if got := b.OK("flow", "status", "s1", "-o", "json"); !strings.Contains(strings.Join(strings.Fields(got), ""), `"state_sizes":[{"up_to":288,"count":3},{"up_to":5120,"count":1}],"state_max":4711`) {
		t.Errorf("%s", got)
	}
}

func TestCancel(t *testing.T) {
	b, _ := world(t)
	startAgent(t, b, "s1", live("203.0.113.1:1000", moving, "s2"), live("203.0.113.3:1000", moving, "s2"))
	startAgent(t, b, "s2")
	r := b.Run("flow", "cancel", "--service", "web")
	if r.Error != nil || strings.Join(strings.Fields(r.Out), " ") != "SERVER STAYED s1 2 s2 0" || !strings.Contains(r.Err, "server s3: its agent does not answer") {
		t.Errorf("%v\n%s%s", r.Error, r.Out, r.Err)
	}
	if got := strings.Join(strings.Fields(b.OK("flow", "cancel", "s1", "--service", "web", "-o", "json")), ""); got != `[{"server":"s1","stayed":2}]` {
		t.Errorf("%s", got)
	}
	b.Refused([]string{"service"}, "flow", "cancel", "s1")
	b.Refused([]string{"mail", "not there"}, "flow", "cancel", "--service", "mail")
}

// TestMoveOfAUser: the user becomes the server's by the service's prefixes, the leader gives it there, and its connections follow.
func TestMoveOfAUser(t *testing.T) {
	b, a := world(t)
	const user = "203.0.113.1"
	from := a.OwnerOf(a.CellOf(netip.MustParseAddr(user)))
	to := map[string]string{"s1": "s2", "s2": "s3", "s3": "s1"}[from]
	giver := startAgent(t, b, from, live(user+":1000", own, from), live(user+":1001", own, from))
	taker := startAgent(t, b, to)
	out := b.OK("flow", "move", user, "--service", "web", "--to", to, "--dry-run")
	if !strings.Contains(out, user+" would go from "+from+" to "+to+", its connections by transfer, forward") || !strings.Contains(out, "2") {
		t.Errorf("%s", out)
	}
	if spec := specOf(t, b); len(spec.Prefixes) != 0 {
		t.Fatalf("a dry run has given %v", spec.Prefixes)
	}
	done := make(chan struct{})
	go func() { // the leader
		defer close(done)
		for {
			var p servicev1.Service
			if t.Context().Err() != nil || b.Get(bus.BucketServices, "web", &p) && len(p.GetPrefixes()) > 0 {
				break
			}
		}
		giver.put()
		taker.put(live(user+":1000", own, to), live(user+":1001", own, to))
		b.Allocate("web", given(t, a, user, to), alloc.Allocation{})
	}()
	out = b.OK("flow", "move", user, "--service", "web", "--to", to, "-o", "json")
	<-done
	var r struct {
		From, To, Prefix, Result string
		Moved                    int
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.From != from || r.To != to || r.Prefix != user || r.Moved != 2 || r.Result != "moved" {
		t.Errorf("%+v, %v", r, err)
	}
	if spec := specOf(t, b); len(spec.Prefixes) != 1 || spec.Prefixes[0].Portion.String() != user || spec.Prefixes[0].Servers[0] != to {
		t.Errorf("prefixes %v", spec.Prefixes)
	}
	if taker.fetched() != 0 {
		t.Error("asked for what moves with its epoch")
	}
}

func specOf(t *testing.T, b *cmdtest.Bus) service.Service {
	t.Helper()
	var p servicev1.Service
	if !b.Get(bus.BucketServices, "web", &p) {
		t.Fatal("no service")
	}
	spec, err := service.FromProto(&p)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// given is the allocation with a fixed portion.
func given(t *testing.T, a alloc.Allocation, user, to string) alloc.Allocation {
	t.Helper()
	next, _, err := alloc.Next(a, alloc.Want{
		Epoch: epoch.Epoch{Term: 5, Number: 2}, Slots: a.Slots, Fixed: []alloc.Fixed{{Portion: portion.Host(netip.MustParseAddr(user)), Owner: to}},
		Servers: []alloc.Server{cmdtest.Alive("s1", 2), cmdtest.Alive("s2", 1), cmdtest.Alive("s3", 1)},
	})
	if err != nil {
		t.Error(err)
	}
	return next
}

// TestMoveOfWhatIsKept: where the user is the server's already, it fetches the connections that others keep.
func TestMoveOfWhatIsKept(t *testing.T) {
	b, a := world(t)
	const user = "203.0.113.1"
	to := a.OwnerOf(a.CellOf(netip.MustParseAddr(user)))
	other := map[string]string{"s1": "s2", "s2": "s3", "s3": "s1"}[to]
	startAgent(t, b, other, live(user+":1000", kept, to), live(user+":1001", kept, to))
	taker := startAgent(t, b, to)
	taker.onFetch = func() { taker.flows = []*handoverv1.LiveFlow{live(user+":1000", own, to)} }
	out := b.OK("flow", "move", user+":1000", "--service", "web", "--to", to)
	if !strings.Contains(out, " moved") || taker.fetched() != 1 || len(taker.fetches[0].GetFlows()) != 1 {
		t.Errorf("%s\n%v", out, taker.fetches)
	}
	out = b.OK("flow", "move", user, "--service", "web", "--to", to)
	if !strings.Contains(out, "1 did not move") || len(taker.fetches[1].GetFlows()) != 2 {
		t.Errorf("%s\n%v", out, taker.fetches)
	}
	b.Refused([]string{"leave the port out"}, "flow", "move", user+":1000", "--service", "web", "--to", other)
	b.Refused([]string{"s7", "none of service web"}, "flow", "move", user, "--service", "web", "--to", "s7")
	b.Refused([]string{"only single addresses of IPv4"}, "flow", "move", "2001:db8::1", "--service", "web", "--to", other6(a))
	b.Put(bus.BucketOperator, "web."+other, &allocv1.Operator{Drained: true})
	b.Refused([]string{"is drained", "undrain web/" + other}, "flow", "move", user, "--service", "web", "--to", other)
}

// other6 is a server that 2001:db8::1 is not of.
func other6(a alloc.Allocation) string {
	user, _ := service.Service{}.Split.User(netip.MustParseAddrPort("[2001:db8::1]:1"))
	for _, name := range a.Servers {
		if a.OwnerOf(a.Slots.Index(user)) != name {
			return name
		}
	}
	return ""
}
