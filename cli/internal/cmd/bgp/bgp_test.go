package bgp_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/testnet"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

func number(n uint32) *uint32 { return &n }

// world is r1 and r2, which speak BGP, and r3, which does not.
type world struct {
	changed []string
	stuck   atomic.Pointer[string] // a router that answers nothing about BGP; nil: none
}

func neighbors(router string) *tdpdv1.BGPNeighbors {
	st := &tdpdv1.BGPNeighbors{As: 4_200_000_001, RouterId: "1.1.1.1", Speaker: "own", Neighbors: []*tdpdv1.BGPNeighbor{{
		Address: "10.0.1.2", As: 65001, RouterId: "9.9.9.9", State: "established", SinceMs: 3_725_000, HoldMs: 9000, UpdatesSent: 4,
		Families: []*tdpdv1.BGPFamily{{Name: "ipv4-unicast", Agreed: true, Received: 500_000}, {Name: "ipv4-flowspec"}},
	}}}
	if router == "r2" {
		st.SpeakerRestarts = 2
		st.Neighbors = []*tdpdv1.BGPNeighbor{
			{Address: "10.0.2.2", As: 65002, State: "active", SinceMs: -1, Flaps: 3, Restarting: true, Families: []*tdpdv1.BGPFamily{{Name: "ipv4-labelled"}}},
			{Address: "2001:db8::2", As: 65003, State: "idle", SinceMs: 1000, OverLimit: true},
		}
	}
	return st
}

func unanswered(why tdpdv1.Why, text string) *tdpdv1.Answer {
	return &tdpdv1.Answer{About: &tdpdv1.Answer_Unanswered{Unanswered: &tdpdv1.Unanswered{Why: why, Text: text}}}
}

func routes(router string, r *tdpdv1.BGPRoutesRequest) *tdpdv1.BGPRoutes {
	if router == "r2" {
		return &tdpdv1.BGPRoutes{}
	}
	out := map[string][]*tdpdv1.BGPPath{
		"ipv4-unicast": {
			{Prefix: "192.0.2.80/32", Best: true, Prepend: 3, Med: number(0), Communities: []string{"graceful-shutdown", "65001:7"}},
			{Prefix: "198.51.100.0/24", NextHop: "10.0.1.2", AsPath: []uint32{65001, 4_200_000_000}, Neighbor: "10.0.1.2", LocalPref: number(300), Stale: true},
		},
		"ipv6-unicast":  {{Prefix: "2001:db8:80::80/128", Best: true}},
		"ipv4-labelled": {{Prefix: "10.9.0.80/32", Labelled: true, Label: 1000, Best: true}},
		"ipv6-labelled": {{Prefix: "2001:db8:9::80/128", Labelled: true, Neighbor: "2001:db8::2", NextHop: "2001:db8::2", AsPath: []uint32{65003}, Filtered: true}},
		"ipv4-flowspec": {
			{Prefix: "192.0.2.80/32", Best: true, Rule: &tdpdv1.BGPRule{Source: "203.0.113.0/25", Protocol: 6, Port: 443, RedirectIp: "10.9.0.80"}},
			{Prefix: "192.0.2.80/32", Best: true, Rule: &tdpdv1.BGPRule{RedirectVrf: "65001:80"}},
		},
	}[r.GetFamily()]
	return &tdpdv1.BGPRoutes{Paths: out, More: r.GetFamily() == "ipv4-unicast" && r.GetPrefix() == ""}
}

// answer answers as that router.
func (w *world) answer(router string, r *tdpdv1.Request) (*tdpdv1.Answer, error) {
	out := &tdpdv1.BGPAnswer{}
	if stuck := w.stuck.Load(); r.GetBgp() != nil && stuck != nil && router == *stuck {
		return nil, errors.New("the speaker does not answer")
	}
	switch about := r.GetBgp().GetAbout().(type) {
	case nil:
		return &tdpdv1.Answer{Router: router, About: &tdpdv1.Answer_Status{Status: &tdpdv1.Status{}}}, nil
	case *tdpdv1.BGPRequest_Neighbors:
		out.About = &tdpdv1.BGPAnswer_Neighbors{Neighbors: neighbors(router)}
	case *tdpdv1.BGPRequest_Left:
		left := &tdpdv1.BGPLeft{Reasons: map[string]uint64{"not_prefix": 1, "hashed": 1}}
		if router == "r1" {
			left.Reasons["over_limit"] = 1499
			left.Portions = append(left.Portions, &tdpdv1.BGPLeftPortion{Service: "api", Portion: "203.0.113.0/24", Reason: "over_limit"})
		}
		left.Portions = append(left.Portions, &tdpdv1.BGPLeftPortion{Service: "web", Portion: "0.0.0.1/0.0.0.255", Server: "10.9.0.80", Reason: "not_prefix"},
			&tdpdv1.BGPLeftPortion{Service: "web", Portion: "::/0", Server: "2001:db8:9::80", Reason: "hashed"})
		out.About = &tdpdv1.BGPAnswer_Left{Left: left}
	case *tdpdv1.BGPRequest_Routes:
		if n := about.Routes.GetNeighbor(); n != "" && (router != "r1" || n != "10.0.1.2") && router != "r3" {
			return unanswered(tdpdv1.Why_WHY_NO_NEIGHBOR, "never heard of "+n), nil
		}
		out.About = &tdpdv1.BGPAnswer_Routes{Routes: routes(router, about.Routes)}
	default:
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.GetBgp())
		if err != nil {
			return nil, err
		}
		w.changed = append(w.changed, router+" "+string(text))
		out.About = &tdpdv1.BGPAnswer_Done{Done: &tdpdv1.BGPDone{What: "done"}}
	}
	if router == "r3" {
		return unanswered(tdpdv1.Why_WHY_NO_BGP, "not a word of BGP"), nil
	}
	return &tdpdv1.Answer{Router: router, About: &tdpdv1.Answer_Bgp{Bgp: out}}, nil
}

// serve has the world's routers on a bus of its own.
func serve(t *testing.T) (*world, *cmdtest.Bus) {
	t.Helper()
	b, w := cmdtest.Start(t), &world{}
	for _, name := range []string{"r2", "r1", "r3"} {
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
	testnet.Eventually(t, 10*time.Second, func() bool { return strings.Count(b.Run("bgp", "neighbors").Out, "r2") == 2 }, "the routers answer")
	return w, b
}

// TestVerbs: what each command shows; of all routers those that speak BGP.
func TestVerbs(t *testing.T) {
	t.Parallel()
	_, b := serve(t)
	for name, args := range map[string]string{
		"neighbors": "bgp neighbors", "neighbors-one": "bgp neighbors --router r1", "routes": "bgp routes", "routes-prefix": "bgp routes 192.0.2.80/32",
		"routes-neighbor": "bgp routes --router r1 --neighbor 10.0.1.2", "labels": "bgp labels", "flowspec": "bgp flowspec", "flowspec-left": "bgp flowspec --left",
	} {
		t.Run(name, func(t *testing.T) { cmdtest.Golden(t, name, b.OK(strings.Fields(args)...)) })
	}
	for _, args := range []string{"bgp neighbors", "bgp routes", "bgp labels", "bgp flowspec", "bgp flowspec --left"} {
		var rows []map[string]any
		if out := b.OK(append(strings.Fields(args), "-o", "json")...); json.Unmarshal([]byte(out), &rows) != nil || len(rows) == 0 || rows[0]["router"] != "r1" {
			t.Errorf("%s:\n%s", args, out)
		}
	}
	if r := b.Run("bgp", "routes"); !strings.Contains(r.Err, "router r1 has more paths of ipv4-unicast") {
		t.Errorf("%q", r.Err)
	}
	if r := b.Run("bgp", "flowspec", "--left"); r.Err != "router r1 leaves 1498 portions more\n" {
		t.Errorf("%q", r.Err)
	}
	if r := b.Run("bgp", "neighbors"); !strings.Contains(r.Err, "r2: its speaker has ended 2 times") {
		t.Errorf("%q", r.Err)
	}
}

// TestPartial: what routers have is shown though another one fails, which is said and is an error; not to speak BGP is none.
func TestPartial(t *testing.T) {
	t.Parallel()
	w, b := serve(t)
	stuck := "r2"
	w.stuck.Store(&stuck)
	for _, args := range []string{"bgp neighbors", "bgp routes", "bgp labels", "bgp flowspec", "bgp flowspec --left"} {
		r := b.Run(strings.Fields(args)...)
		if r.Error == nil || !strings.Contains(r.Error.Error(), "router r2: ") || !strings.Contains(r.Error.Error(), "the speaker does not answer") || strings.Contains(r.Error.Error(), "r3") {
			t.Errorf("%s: %v", args, r.Error)
		}
		if !strings.Contains(r.Out, "r1 ") {
			t.Errorf("%s: nothing of r1:\n%s", args, r.Out)
		}
	}
	if out := b.OK("bgp", "neighbors", "--router", "r1"); !strings.Contains(out, "10.0.1.2") {
		t.Errorf("r1 alone:\n%s", out)
	}
	if out := b.Complete("bgp", "routes", "--neighbor", ""); !strings.Contains(out, "10.0.1.2") {
		t.Errorf("completion:\n%s", out)
	}
}

// TestChanges: what is said is what the router is asked for, and no router but the one that is named.
func TestChanges(t *testing.T) {
	t.Parallel()
	w, b := serve(t)
	for args, want := range map[string]*tdpdv1.BGPRequest{
		"bgp announce 192.0.2.80/32 --med 0 --prepend 2 --community graceful-shutdown,65001:7 --next-hop 10.0.0.9 --local-pref 5 --router r1": {About: &tdpdv1.BGPRequest_Announce{Announce: &tdpdv1.BGPPath{
			Prefix: "192.0.2.80/32", Med: number(0), Prepend: 2, Communities: []string{"graceful-shutdown", "65001:7"}, NextHop: "10.0.0.9", LocalPref: number(5),
		}}},
		"bgp announce 10.9.0.80/32 --label 0 --router r1":          {About: &tdpdv1.BGPRequest_Announce{Announce: &tdpdv1.BGPPath{Prefix: "10.9.0.80/32", Labelled: true}}},
		"bgp withdraw 10.9.0.80/32 --labelled --router r1 -o json": {About: &tdpdv1.BGPRequest_Withdraw{Withdraw: &tdpdv1.BGPPath{Prefix: "10.9.0.80/32", Labelled: true}}},
		"bgp clear 10.0.1.2 --router r1 --soft":                    {About: &tdpdv1.BGPRequest_Clear{Clear: &tdpdv1.BGPClearRequest{Neighbor: "10.0.1.2", Soft: true}}},
	} {
		w.changed = nil
		out := b.OK(strings.Fields(args)...)
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
		if err != nil || len(w.changed) != 1 || w.changed[0] != "r1 "+string(text) || !strings.Contains(out, "done") {
			t.Errorf("%s: %q, %v\n%s", args, w.changed, err, out)
		}
	}
	w.changed = nil
	b.Refused([]string{"3 routers", "--router"}, "bgp", "announce", "192.0.2.80/32")
	b.Refused([]string{"not a word of BGP"}, "bgp", "neighbors", "--router", "r3")
	b.Refused([]string{"r9 is not on the bus"}, "bgp", "clear", "10.0.1.2", "--router", "r9")
	b.Refused([]string{"name no prefix"}, "bgp", "flowspec", "--left", "192.0.2.80/32")
	b.Refused([]string{"no prefix"}, "bgp", "routes", "everything")
	b.Refused([]string{"never heard of 10.0.0.9"}, "bgp", "routes", "--router", "r1", "--neighbor", "10.0.0.9")
	b.Refused([]string{"status socket"}, "bgp", "routes", "--socket", "/nowhere/status.sock")
	if len(w.changed) != 0 {
		t.Errorf("%q", w.changed)
	}
	for args, want := range map[string]string{"bgp clear": "10.0.1.2", "bgp routes --neighbor": "10.0.2.2", "bgp neighbors --router": "r2"} {
		if out := b.Complete(append(strings.Fields(args), "")...); !strings.Contains("\n"+out, "\n"+want) {
			t.Errorf("%s: no %s in\n%s", args, want, out)
		}
	}
}
