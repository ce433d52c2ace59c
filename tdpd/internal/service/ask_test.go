package service

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/routes"
)

// ask asks a router with a request as JSON.
func (r *router) ask(t *testing.T, request string) *tdpdv1.Answer {
	t.Helper()
	answer, err := r.tryAsk(t, request)
	if err != nil {
		t.Fatalf("%s: %s: %v", r.name, request, err)
	}
	if answer.GetRouter() != r.name {
		t.Errorf("%s answers as %s", r.name, answer.GetRouter())
	}
	return answer
}

func (r *router) tryAsk(t *testing.T, request string) (*tdpdv1.Answer, error) {
	t.Helper()
	q := &tdpdv1.Request{}
	if err := protojson.Unmarshal([]byte(request), q); err != nil {
		t.Fatal(err)
	}
	return r.Ask(t.Context(), q)
}

// hopText is next hops in few words.
func hopText(hops []*tdpdv1.NextHop) string {
	var out []string
	for _, h := range hops {
		word := h.GetOperation()
		if h.Label != nil {
			word += fmt.Sprint(" ", h.GetLabel())
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s via %s by %s of %s", word, h.GetVia(), h.GetInterface(), h.GetNeighbor())))
	}
	return strings.Join(out, ", ")
}

func stop(t *testing.T, all ...*router) {
	t.Helper()
	for _, r := range all {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestWhatRoutersSayOfATree: status, FECs, tables and the way of a packet agree with each other and with the kernel's tables.
func TestWhatRoutersSayOfATree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r1, r2, r3 := chain(t)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		labels := tree(t, "converged", r1, r2, r3)

		st := r2.ask(t, `{"status": {}}`).GetStatus()
		if len(st.GetNeighbors()) != 2 || st.GetRouterId() != "2.2.2.2" || st.GetSessionsUp() != 2 || st.GetServers() != 1 || st.GetForwarding().GetError() != "" {
			t.Errorf("status of r2: %v", st)
		}
		n := st.GetNeighbors()[0]
		if n.GetId() != "1.1.1.1:0" || n.GetState() != "OPERATIONAL" || n.GetRole() != "active" || n.GetRemote() != "1.1.1.1" || len(n.GetAdjacencies()) != 1 ||
			n.GetAgreed().GetKeepaliveMs() != 180_000 || n.GetAgreed().GetReconnectMs() != 120_000 || n.GetUps() != 1 || n.GetBindings() == 0 || n.GetAddresses() != 2 ||
			strings.Join(n.GetAgreed().GetCapabilities(), " ") != "dynamic typed-wildcard unrecognized-notification" {
			t.Errorf("neighbor of r2: %v", n)
		}
		if n.GetSent()["Initialization"] != 1 || n.GetReceived()["Label Mapping"] == 0 {
			t.Errorf("messages: sent %v, received %v", n.GetSent(), n.GetReceived())
		}

		f := r2.ask(t, `{"fecs": {"address": "10.9.0.80"}}`).GetFecs().GetFecs()
		if len(f) != 1 || f[0].GetPrefix() != "10.9.0.80/32" || f[0].GetKind() != "transit" || f[0].GetLocal() != labels[0] || !f[0].GetServer() || f[0].GetRoute() != "10.9.0.0/24" ||
			f[0].GetMetric() != 20 || hopText(f[0].GetHops()) != fmt.Sprintf("push %d via 10.0.23.3 by b of 3.3.3.3:0", labels[1]) {
			t.Errorf("FEC of the server at r2: %v", f)
		}
		wantSteps(t, labels, r1, r2, r3)
		stop(t, r1, r2, r3)
	})
}

// wantSteps follows a packet to the server, and one to its link, and asks for what nobody knows.
func wantSteps(t *testing.T, labels []uint32, r1, r2, r3 *router) {
	t.Helper()
	for _, x := range []struct {
		at              *router
		ask, want, hops string
	}{
		{r1, `{"address": "10.9.0.80"}`, "push 10.9.0.80/32", fmt.Sprintf("push %d via 10.0.12.2 by a of 2.2.2.2:0", labels[0])},
		{r2, fmt.Sprintf(`{"label": %d}`, labels[0]), "swap 10.9.0.80/32", fmt.Sprintf("swap %d via 10.0.23.3 by b of 3.3.3.3:0", labels[1])},
		{r3, fmt.Sprintf(`{"label": %d}`, labels[1]), "pop 10.9.0.80/32", "pop via 10.9.0.80 by c of"},
		{r2, `{"address": "10.9.0.7"}`, "forward 10.9.0.0/24", "keep via 10.0.23.3 by b of 3.3.3.3:0"}, // r3 binds implicit null
		{r3, `{"address": "10.9.0.7"}`, "forward 10.9.0.0/24", "via 10.9.0.7 by c of"},
		{r3, `{"label": 0, "address": "3.3.3.3"}`, "deliver 3.3.3.3/32", ""},
		{r3, `{"label": 99}`, "drop ", ""},
		{r3, `{"address": "192.0.2.1"}`, "drop ", ""},
	} {
		step := x.at.ask(t, `{"step": `+x.ask+`}`).GetStep()
		if got := step.GetAction() + " " + step.GetFec(); got != x.want || hopText(step.GetHops()) != x.hops || (step.GetAction() == "drop") != (step.GetWhy() != "") {
			t.Errorf("%s of %s: %v, want %s %s", x.at.name, x.ask, step, x.want, x.hops)
		}
	}
}

// TestPages: small pages, one after the other, have what one large page has.
func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r1, r2, r3 := chain(t)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		const all, some = `"limit": 0`, `"limit": 1`
		for _, kind := range []string{"", `"ftn": true,`} {
			var want, got []string
			read := func(limit, after string, into *[]string) string {
				table := r1.ask(t, fmt.Sprintf(`{"table": {%s %s, "after": %q}}`, kind, limit, after)).GetTable()
				for _, e := range table.GetEntries() {
					*into = append(*into, fmt.Sprint(e.GetLabel(), e.GetFec(), hopText(e.GetHops())))
				}
				return table.GetNext()
			}
			if next := read(all, "", &want); next != "" || len(want) == 0 {
				t.Fatalf("%d entries, then %q", len(want), next)
			}
			for after := read(some, "", &got); after != ""; after = read(some, after, &got) {
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("%v, want %v", got, want)
			}
		}
		want := r1.ask(t, `{"fecs": {}}`).GetFecs()
		n, after := 0, ""
		for {
			f := r1.ask(t, fmt.Sprintf(`{"fecs": {%s, "after": %q}}`, some, after)).GetFecs()
			n += len(f.GetFecs())
			if after = f.GetNext(); after == "" {
				break
			}
		}
		if n != len(want.GetFecs()) || n < 4 || want.GetNext() != "" {
			t.Errorf("%d FECs in pages, %d at once, then %q", n, len(want.GetFecs()), want.GetNext())
		}
		if f := r1.ask(t, `{"fecs": {"servers": true}}`).GetFecs().GetFecs(); len(f) != 1 || f[0].GetPrefix() != "10.9.0.80/32" {
			t.Errorf("trees: %v", f)
		}
		if f := r1.ask(t, `{"fecs": {"prefix": "10.9.0.0/24"}}`).GetFecs().GetFecs(); len(f) != 1 || f[0].Local == nil {
			t.Errorf("one prefix: %v", f)
		}
		stop(t, r1, r2, r3)
	})
}

// TestWrongRequests say what is wrong with them.
func TestWrongRequests(t *testing.T) {
	s := passive(t, nil)
	r := &router{Service: s}
	for request, want := range map[string]string{
		`{}`:                                         "older release",
		`{"fecs": {"after": "x"}}`:                   `after "x"`,
		`{"fecs": {"prefix": "1.2.3.4/99"}}`:         `prefix "1.2.3.4/99"`,
		`{"fecs": {"address": "fe80::1%eth0"}}`:      "without a zone",
		`{"table": {"after": "10.0.0.0/8"}}`:         "want a label",
		`{"table": {"ftn": true, "after": "z"}}`:     "want a prefix",
		`{"step": {}}`:                               "to which address",
		`{"step": {"address": "everywhere"}}`:        `address "everywhere"`,
		`{"clear": {"neighbor": "2001:db8::1"}}`:     "want a router id",
		`{"clear": {"neighbor": "10.0.0.2:1"}}`:      "want a router id",
		`{"step": {"label": 0, "address": "::1%a"}}`: "without a zone",
	} {
		if _, err := r.tryAsk(t, request); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", request, err, want)
		}
	}
}

// TestClearedFromOutside: the session ends and comes back; who is no neighbor is none.
func TestClearedFromOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r1, r2, r3 := chain(t)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if _, err := r2.tryAsk(t, `{"clear": {"neighbor": "7.7.7.7"}}`); err == nil || !strings.Contains(err.Error(), "no such neighbor: 7.7.7.7:0") {
			t.Errorf("a stranger: %v", err)
		}
		if c := r2.ask(t, `{"clear": {"neighbor": "3.3.3.3:0"}}`).GetClear(); c.GetNeighbor() != "3.3.3.3:0" {
			t.Errorf("cleared %v", c)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		n := r2.ask(t, `{"status": {}}`).GetStatus().GetNeighbors()[1]
		if n.GetState() != "OPERATIONAL" || n.GetUps() != 2 || n.GetDowns() != 1 || n.GetLastDown() == "" {
			t.Errorf("after the clear: %v", n)
		}
		var sessions []string
		labels := map[What]int{}
		for _, e := range r2.events {
			if e.FEC.IsValid() {
				labels[e.What]++
			} else {
				sessions = append(sessions, fmt.Sprint(e.What, " ", e.Peer, " ", e.Why != ""))
			}
		}
		if got := strings.Join(sessions[len(sessions)-2:], ", "); got != "session-down 3.3.3.3:0 true, session-up 3.3.3.3:0 false" {
			t.Errorf("events of sessions: %v", sessions)
		}
		if labels[BindingBound] == 0 || labels[BindingLost] == 0 || labels[BindingLearned] <= labels[BindingLost] || labels[BindingUnbound] != 0 {
			t.Errorf("events of bindings: %v", labels)
		}
		stop(t, r1, r2, r3)
	})
}

// TestRouteThatWinsAgainstLabels: without a metric it does, and that is told.
func TestRouteThatWinsAgainstLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r1, r2, r3 := chain(t)
		r1.routes.Send(routes.Change{Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.80/32"): via("10.0.12.2", 2)}})
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if u := r1.ask(t, `{"status": {}}`).GetStatus().GetUnlabelled(); len(u) != 0 {
			t.Errorf("with a metric: %v", u)
		}
		bare := via("10.0.12.2", 2)
		bare.Metric = 0
		r1.routes.Send(routes.Change{Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.80/32"): bare}})
		synctest.Wait()
		if !strings.Contains(r1.log.String(), "route=10.9.0.80/32") {
			t.Error("it is not warned of")
		}
		if u := r1.ask(t, `{"status": {}}`).GetStatus().GetUnlabelled(); len(u) != 1 || u[0] != "10.9.0.80/32" {
			t.Errorf("routes that win: %v", u)
		}
		step := r1.ask(t, `{"step": {"address": "10.9.0.80"}}`).GetStep()
		if step.GetAction() != "forward" || hopText(step.GetHops()) != "via 10.0.12.2 by a of 2.2.2.2:0" {
			t.Errorf("step %v", step)
		}
		for name, c := range map[string]routes.Change{
			"a metric":   {Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.80/32"): via("10.0.12.2", 2)}},
			"no route":   {Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.80/32"): nil}},
			"all anew":   {Full: true, Interfaces: r1.fecs.Table().Interfaces, Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.0/24"): via("10.0.12.2", 2)}},
			"all anew 2": {Full: true, Interfaces: r1.fecs.Table().Interfaces, Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.80/32"): via("10.0.12.2", 2)}},
		} {
			r1.routes.Send(routes.Change{Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.80/32"): bare}})
			synctest.Wait()
			if u := r1.ask(t, `{"status": {}}`).GetStatus().GetUnlabelled(); len(u) != 1 {
				t.Errorf("before %s: routes that win: %v", name, u)
			}
			r1.routes.Send(c)
			synctest.Wait()
			if u := r1.ask(t, `{"status": {}}`).GetStatus().GetUnlabelled(); len(u) != 0 {
				t.Errorf("%s: routes that win: %v", name, u)
			}
		}
		stop(t, r1, r2, r3)
	})
}
