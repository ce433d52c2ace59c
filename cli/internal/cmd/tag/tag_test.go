package tag_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/testnet"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

func label(n uint32) *uint32 { return &n }

// world is r1 - r2 - r3 - server 10.9.0.80 with two links from r1 to r2, and a router 4.4.4.4 of somebody else's behind r2.
type world struct {
	t       *testing.T
	cleared string
}

func neighbor(id, iface, source string) *tdpdv1.Neighbor {
	return &tdpdv1.Neighbor{
		Id: id, State: "OPERATIONAL", StateMs: 61_000, Role: "active", Local: "1.1.1.1", Remote: strings.TrimSuffix(id, ":0"), Bindings: 3, Ups: 1, Families: []string{"ipv4"},
		Agreed:      &tdpdv1.Agreed{KeepaliveMs: 180_000, MaxPdu: 4096, ReconnectMs: -1, RecoveryMs: -1},
		Adjacencies: []*tdpdv1.Adjacency{{Interface: iface, Source: source, Transport: strings.TrimSuffix(id, ":0"), HoldMs: 15_000, LeftMs: 12_000}},
		Sent:        map[string]uint64{"Label Mapping": 4}, Received: map[string]uint64{"Label Mapping": 3},
	}
}

func status(router string) *tdpdv1.Status {
	st := &tdpdv1.Status{RouterId: map[string]string{"r1": "1.1.1.1", "r.2": "2.2.2.2", "r3": "3.3.3.3"}[router], Addresses: []string{"1.1.1.1"}}
	st.Interfaces = []*tdpdv1.Interface{{Name: "a", Ipv4: true}, {Name: "z"}}
	switch router {
	case "r1":
		st.Neighbors = []*tdpdv1.Neighbor{neighbor("2.2.2.2:0", "a", "10.0.12.2")}
		st.Steered = []*tdpdv1.Steered{
			{Service: "mail", Vips: []string{"192.0.2.25"}, Voucher: "3.3.3.3", Epoch: &allocv1.Epoch{Term: 1, Number: 2}, Servers: 2, Reactive: true, Active: 12},
			{Service: "web", Vips: []string{"192.0.2.80", "2001:db8::80"}, Voucher: "2.2.2.2", Epoch: &allocv1.Epoch{Term: 3, Number: 7}, Servers: 40, Users: 9, Failing: []string{"s3", "s17"}},
		}
		st.UserBindingsRefused = map[string]uint64{"stale": 12, "not_trusted": 1}
	case "r.2":
		lost := neighbor("4.4.4.4:0", "", "4.4.4.4")
		lost.State, lost.Agreed, lost.LastDown, lost.Restarting = "NON EXISTENT", nil, "the peer has closed the connection", true
		st.Neighbors = []*tdpdv1.Neighbor{neighbor("1.1.1.1:0", "a", "10.0.12.1"), neighbor("3.3.3.3:0", "b", "10.0.23.3"), lost}
		st.Neighbors[1].StateMs = (9*24 + 5) * 3600_000
		st.UserBindingsRefused = map[string]uint64{"not_offered": 3}
	case "r3":
		dual := neighbor("2.2.2.2:0", "a", "fe80::2")
		dual.Adjacencies = append(dual.Adjacencies, &tdpdv1.Adjacency{Interface: "a", Source: "10.0.23.2", Transport: "2.2.2.2", HoldMs: -1, LeftMs: -1, DualStack: true})
		dual.Adjacencies[0].Transport, dual.Adjacencies[0].DualStack = "2001:db8::2", true
		dual.StateMs, dual.Role, dual.Md5, dual.Agreed.Capabilities = 25*3600_000, "passive", true, []string{"typed-wildcard", "dynamic"}
		st.Interfaces[0].Ipv6 = true
		st.Neighbors, st.Addresses = []*tdpdv1.Neighbor{dual}, []string{"3.3.3.3", "2001:db8::3"}
	}
	return st
}

func via(operation string, out *uint32, via, iface, neighbor string) *tdpdv1.NextHop {
	return &tdpdv1.NextHop{Operation: operation, Label: out, Via: via, Interface: iface, Neighbor: neighbor}
}

// steps are what routers do with packets: by router, label that comes in (0: none) and address.
var steps = map[string]*tdpdv1.Step{
	"r1 0 10.9.0.80": {Fec: "10.9.0.80/32", Kind: "transit", Action: "push", Hops: []*tdpdv1.NextHop{
		via("push", label(17), "10.0.12.2", "a", "2.2.2.2:0"), via("push", label(17), "10.1.12.2", "b", "2.2.2.2:0"),
	}},
	"r.2 0 10.9.0.80":  {Fec: "10.9.0.80/32", Kind: "transit", Action: "push", Hops: []*tdpdv1.NextHop{via("push", label(18), "10.0.23.3", "b", "3.3.3.3:0")}},
	"r3 0 10.9.0.80":   {Fec: "10.9.0.80/32", Kind: "server", Action: "forward", Hops: []*tdpdv1.NextHop{via("", nil, "10.9.0.80", "c", "")}},
	"r.2 17 10.9.0.80": {Fec: "10.9.0.80/32", Kind: "transit", Action: "swap", Hops: []*tdpdv1.NextHop{via("swap", label(18), "10.0.23.3", "b", "3.3.3.3:0")}},
	"r3 18 10.9.0.80":  {Fec: "10.9.0.80/32", Kind: "server", Action: "pop", Hops: []*tdpdv1.NextHop{via("pop", nil, "10.9.0.80", "c", "")}},
	// 10.4.0.1 is behind the foreign router.
	"r1 0 10.4.0.1":   {Fec: "10.4.0.0/24", Kind: "transit", Action: "push", Hops: []*tdpdv1.NextHop{via("push", label(40), "10.0.12.2", "a", "2.2.2.2:0")}},
	"r.2 40 10.4.0.1": {Fec: "10.4.0.0/24", Kind: "transit", Action: "pop", Hops: []*tdpdv1.NextHop{via("pop", nil, "10.0.24.4", "d", "4.4.4.4:0")}},
	"r.2 0 10.4.0.1":  {Action: "drop", Why: "no route"},
	"r3 0 10.4.0.1":   {Action: "drop", Why: "no route"},
	// 10.6.0.1 goes in circles.
	"r1 0 10.6.0.1":   {Action: "push", Hops: []*tdpdv1.NextHop{via("push", label(60), "10.0.12.2", "a", "2.2.2.2:0")}},
	"r.2 0 10.6.0.1":  {Action: "push", Hops: []*tdpdv1.NextHop{via("push", label(61), "10.0.23.3", "b", "3.3.3.3:0")}},
	"r3 0 10.6.0.1":   {Action: "forward", Hops: []*tdpdv1.NextHop{via("", nil, "10.0.12.1", "a", "1.1.1.1:0")}},
	"r.2 60 10.6.0.1": {Action: "swap", Hops: []*tdpdv1.NextHop{via("swap", label(61), "10.0.23.3", "b", "3.3.3.3:0")}},
	"r3 61 10.6.0.1":  {Action: "swap", Hops: []*tdpdv1.NextHop{via("swap", label(60), "10.0.23.2", "a", "2.2.2.2:0")}},
}

// answer answers as that router.
func (w *world) answer(router string, r *tdpdv1.Request) (*tdpdv1.Answer, error) {
	out := &tdpdv1.Answer{Router: router}
	switch about := r.GetAbout().(type) {
	case *tdpdv1.Request_Status:
		out.About = &tdpdv1.Answer_Status{Status: status(router)}
	case *tdpdv1.Request_Step:
		step := steps[fmt.Sprint(router, " ", about.Step.GetLabel(), " ", about.Step.GetAddress())]
		if step == nil {
			return nil, fmt.Errorf("%s: unexpected %v", router, about)
		}
		out.About = &tdpdv1.Answer_Step{Step: step}
	case *tdpdv1.Request_Fecs:
		out.About = &tdpdv1.Answer_Fecs{Fecs: fecs(router, about.Fecs)}
	case *tdpdv1.Request_Table:
		out.About = &tdpdv1.Answer_Table{Table: table(about.Table)}
	case *tdpdv1.Request_Clear:
		w.cleared = router + " " + about.Clear.GetNeighbor()
		out.About = &tdpdv1.Answer_Clear{Clear: &tdpdv1.Cleared{Neighbor: about.Clear.GetNeighbor() + ":0"}}
	default:
		return nil, errors.New("about nothing")
	}
	return out, nil
}

// fecs are two pages: of the server and of a network.
func fecs(router string, r *tdpdv1.FECsRequest) *tdpdv1.FECs {
	server := &tdpdv1.FEC{Prefix: "10.9.0.80/32", Kind: "transit", Local: label(17), Server: true, Route: "10.9.0.0/24", Metric: 20}
	server.Hops = steps[router+" 0 10.9.0.80"].GetHops()
	server.Remote = []*tdpdv1.Binding{{Neighbor: "3.3.3.3:0", Label: 18, InUse: true}, {Neighbor: "1.1.1.1:0", Label: 17, Stale: true}}
	server.Sent = []*tdpdv1.Binding{{Neighbor: "1.1.1.1:0", Label: 17}, {Neighbor: "4.4.4.4:0", Label: 16, Leaves: true}}
	network := &tdpdv1.FEC{Prefix: "10.9.0.0/24", Kind: "transit", Local: label(3), Route: "10.9.0.0/24", Hops: []*tdpdv1.NextHop{via("keep", nil, "10.0.23.3", "b", "3.3.3.3:0")}}
	if router == "r1" {
		network.Hops = []*tdpdv1.NextHop{via("push", label(25), "10.0.12.2", "a", "2.2.2.2:0")}
	}
	network.Plain = router == "r.2"
	if router == "r3" {
		server.Kind, server.Local = "server", label(18)
		network.Kind, network.Hops = "attached", nil
	}
	switch {
	case r.GetServers(), r.GetPrefix() == "10.9.0.80/32", r.GetAddress() == "10.9.0.80":
		return &tdpdv1.FECs{Fecs: []*tdpdv1.FEC{server}}
	case r.GetPrefix() != "", r.GetAddress() != "":
		return &tdpdv1.FECs{}
	case r.GetAfter() == "":
		return &tdpdv1.FECs{Fecs: []*tdpdv1.FEC{network}, Next: "10.9.0.0/24"}
	}
	return &tdpdv1.FECs{Fecs: []*tdpdv1.FEC{server}}
}

// table is two pages of each.
func table(r *tdpdv1.TableRequest) *tdpdv1.Table {
	hops := []*tdpdv1.NextHop{via("push", label(18), "10.0.23.3", "b", "3.3.3.3:0")}
	switch {
	case r.GetFtn():
		return &tdpdv1.Table{Entries: []*tdpdv1.Entry{{Fec: "10.9.0.80/32", Hops: hops}}}
	case r.GetAfter() == "":
		return &tdpdv1.Table{Next: "17", Entries: []*tdpdv1.Entry{{
			Label: label(17), Fec: "10.9.0.80/32", Kind: "transit", Hops: []*tdpdv1.NextHop{via("swap", label(18), "10.0.23.3", "b", "3.3.3.3:0")},
		}}}
	}
	return &tdpdv1.Table{Entries: []*tdpdv1.Entry{{Label: label(19), Fec: "10.5.0.0/24", Kind: "transit"}}}
}

// serve has the world's routers on a bus of its own.
func serve(t *testing.T) (*world, *cmdtest.Bus) {
	t.Helper()
	b, w := cmdtest.Start(t), &world{t: t}
	for _, name := range []string{"r3", "r1", "r.2"} {
		conn, err := bus.Connect(bus.Config{
			URLs: []string{b.URL()}, Credentials: filepath.Join(filepath.Dir(b.Credentials()), "tdpd.nk"), Name: name, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		for _, subject := range []string{"tdpd.ask", bus.Of("tdpd.ask", name)} {
			_, err := conn.Handle(subject, func(m bus.Msg) (proto.Message, error) {
				r := &tdpdv1.Request{}
				if err := proto.Unmarshal(m.Data, r); err != nil {
					return nil, err
				}
				return w.answer(name, r)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	testnet.Eventually(t, 10*time.Second, func() bool {
		return strings.Count(b.Run("tag", "neighbors").Out, "OPERATIONAL") == 4
	}, "the routers answer")
	return w, b
}

// TestVerbs: what each command shows.
func TestVerbs(t *testing.T) {
	t.Parallel()
	_, b := serve(t)
	for name, args := range map[string]string{
		"neighbors": "tag neighbors", "neighbors-one": "tag neighbors r.2", "bindings": "tag bindings r.2", "bindings-prefix": "tag bindings --prefix 10.9.0.80/32",
		"table": "tag table r.2", "fec": "tag fec", "fec-address": "tag fec 10.9.0.80 --router r1", "trees": "tag trees", "trees-one": "tag trees 10.9.0.80",
		"users": "tag users", "users-one": "tag users r3",
		"trace": "tag trace 10.9.0.80", "trace-from": "tag trace 10.9.0.80 --from r.2", "trace-foreign": "tag trace 10.4.0.1 --from r1", "trace-drop": "tag trace 10.4.0.1 --from r3",
		"trace-loop": "tag trace 10.6.0.1", "trace-json": "tag trace 10.9.0.80 --from r1 -o json",
		"show-neighbor": "show mpls ldp neighbor", "show-binding": "show mpls ldp binding --router r.2", "show-discovery": "show mpls ldp discovery",
		"show-discovery6": "show mpls ldp ipv6 discovery", "show-interface": "show mpls ldp interface --router r1",
		"show-neighbor-detail": "show mpls ldp neighbor detail", "show-discovery-detail": "show mpls ldp discovery detail",
		"show-discovery6-detail": "show mpls ldp ipv6 discovery detail --router r3",
	} {
		t.Run(name, func(t *testing.T) { cmdtest.Golden(t, name, b.OK(strings.Fields(args)...)) })
	}
}

// TestJSON: every command gives JSON.
func TestJSON(t *testing.T) {
	t.Parallel()
	_, b := serve(t)
	for _, args := range []string{
		"tag neighbors", "tag bindings", "tag table", "tag fec", "tag trees", "tag trace 10.9.0.80", "tag users",
		"show mpls ldp neighbor", "show mpls ldp neighbor detail", "show mpls ldp discovery detail", "show mpls ldp binding", "show mpls ldp ipv4 discovery", "show mpls ldp ipv4 interface",
	} {
		var rows []map[string]any
		out := b.OK(append(strings.Fields(args), "-o", "json")...)
		if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) == 0 || rows[0]["router"] == "" {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
}

func TestClear(t *testing.T) {
	t.Parallel()
	w, b := serve(t)
	out := b.OK("tag", "clear", "neighbor", "3.3.3.3")
	if w.cleared != "r.2 3.3.3.3" || !strings.Contains(out, "cleared") {
		t.Errorf("cleared %q\n%s", w.cleared, out)
	}
	b.Refused([]string{"r1, r3", "--router"}, "tag", "clear", "neighbor", "2.2.2.2")
	b.OK("tag", "clear", "neighbor", "2.2.2.2:0", "--router", "r3", "-o", "json")
	if w.cleared != "r3 2.2.2.2" {
		t.Errorf("cleared %q", w.cleared)
	}
}

func TestErrorsNameTheWayOut(t *testing.T) {
	t.Parallel()
	_, b := serve(t)
	b.Refused([]string{"r9 is not on the bus"}, "tag", "neighbors", "r9")
	b.Refused([]string{"has a neighbor 9.9.9.9"}, "tag", "clear", "neighbor", "9.9.9.9")
	b.Refused([]string{"neither an address nor a prefix"}, "tag", "fec", "web")
	b.Refused([]string{"no address"}, "tag", "trace", "web")
	b.Refused([]string{"r9 does not answer"}, "tag", "trace", "10.9.0.80", "--from", "r9")
	b.Refused([]string{"status socket"}, "tag", "neighbors", "--socket", "/nowhere/status.sock")
	empty := cmdtest.Start(t)
	empty.Refused([]string{"no label switching router is on the bus", "--socket"}, "tag", "trees")
}

func TestCompletions(t *testing.T) {
	t.Parallel()
	_, b := serve(t)
	for args, want := range map[string][]string{
		"tag neighbors": {"r.2", "r1", "r3"}, "tag users": {"r.2", "r1", "r3"}, "tag clear neighbor": {"4.4.4.4"}, "tag trace": {"10.9.0.80"}, "tag trees": {"10.9.0.80"}, "tag trace x --from": {"r3"},
		"show mpls ldp": {"binding", "discovery", "interface", "neighbor", "ipv6"}, "show mpls ldp neighbor": {"detail"},
	} {
		out := b.Complete(append(strings.Fields(args), "")...)
		for _, word := range want {
			if !strings.Contains("\n"+out, "\n"+word) {
				t.Errorf("%s: no %s in\n%s", args, word, out)
			}
		}
	}
}
