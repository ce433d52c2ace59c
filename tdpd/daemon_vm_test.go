package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// TestVMKilledAndStartedAgain: three routers make the tree of a server, and packets take it. The last router is killed: they still do,
// and the next process goes on with its labels. A clean stop leaves nothing in the kernel.
func TestVMKilledAndStartedAgain(t *testing.T) {
	r := newRig(t)
	r.extra = "[servers]\naddresses = [\"10.9.0.80\"]\n[restart]\nreconnect = \"20s\"\nrecovery = \"10s\"\n"
	for _, name := range routers {
		r.start(name)
	}
	r.operational("r2", 2)
	before := r.tree()
	ping := func(when string) {
		t.Helper()
		if out, err := r.nodes["r1"].Run("ping", "-c", "3", "-i", "0.2", "-W", "2", "10.9.0.80"); err != nil {
			t.Errorf("%s: %v\n%s", when, err, out)
		}
	}
	ping("converged")
	if out := r.run("r3", "ip", "-f", "mpls", "route"); !strings.Contains(out, "via inet 10.9.0.80 dev c") {
		t.Errorf("the kernel of the last router has\n%s", out)
	}

	r.daemons["r3"].Signal(unix.SIGKILL)
	r.daemons["r3"].Wait()
	r.operational("r2", 1)
	ping("the last router is dead")
	r.start("r3")
	r.operational("r2", 2)
	ping("it is back")
	if after := r.tree(); !slices.Equal(before, after) {
		t.Errorf("labels %v, before %v", after, before)
	}
	testnet.Eventually(t, 30*time.Second, func() bool {
		answer, ok := r.ask("r3", "")
		return ok && answer.GetStatus().GetForwarding().GetRecoveryMs() == 0
	}, "the end of the restart")
	if after := r.tree(); !slices.Equal(before, after) {
		t.Errorf("after the restart labels are %v, before %v", after, before)
	}
	ping("its restart is over")

	for _, name := range routers {
		r.daemons[name].Signal(unix.SIGTERM)
		if err := r.daemons[name].Wait(); err != nil {
			t.Errorf("%s ends with %v", name, err)
		}
		if out := r.run(name, "ip", "-f", "mpls", "route"); out != "" {
			t.Errorf("%s leaves\n%s", name, out)
		}
	}
}

// TestVMOverTheBus: a server that registers has a tree, which the operator follows from router to router; a while after its registration is gone, so
// is the tree.
func TestVMOverTheBus(t *testing.T) {
	r := newRig(t)
	r.startBus()
	r.extra = "[servers]\nlinger = \"3s\"\n" + r.extra
	for _, name := range routers {
		r.start(name)
	}
	r.operational("r2", 2)
	agent := r.nodes["r1"].Start("env", agentEnv+"="+r.state("bus"), os.Args[0])
	labels := r.tree()

	var neighbors []struct{ Router, Neighbor, State string }
	if err := json.Unmarshal([]byte(r.run("r1", r.cli("tag", "neighbors", "-o", "json")...)), &neighbors); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range neighbors {
		got = append(got, n.Router+" "+n.Neighbor+" "+n.State)
	}
	want := "r1 2.2.2.2:0 OPERATIONAL, r2 1.1.1.1:0 OPERATIONAL, r2 3.3.3.3:0 OPERATIONAL, r3 2.2.2.2:0 OPERATIONAL"
	if strings.Join(got, ", ") != want {
		t.Errorf("neighbors %s", got)
	}
	out := r.run("r1", r.cli("tag", "trace", "10.9.0.80")...)
	trace := fmt.Sprintf(`FROM HOP ROUTER IN ACTION OUT NEXT HOP NEXT ROUTER
r1 1 r1 - push %[1]d 10.0.12.2%%a r2
r1 2 r2 %[1]d swap %[2]d 10.0.23.3%%b r3
r1 3 r3 %[2]d pop - 10.9.0.80%%c -
`, labels[0], labels[1])
	if squeezed := regexp.MustCompile(" +").ReplaceAllString(out, " "); squeezed != trace {
		t.Errorf("trace\n%swant\n%s", squeezed, trace)
	}

	r.run("r1", r.cli("tag", "clear", "neighbor", "3.3.3.3")...)
	testnet.Eventually(t, 30*time.Second, func() bool {
		return strings.Contains(r.run("r1", r.cli("tag", "neighbors", "r2", "-o", "json")...), `"ups": 2`)
	}, "the session that was cleared")
	r.tree()

	// The next process knows the servers before the bus tells them, and they keep their labels.
	before := r.tree()
	r.daemons["r3"].Signal(unix.SIGKILL)
	r.daemons["r3"].Wait()
	r.start("r3")
	r.operational("r2", 2)
	if after := r.tree(); !slices.Equal(before, after) {
		t.Errorf("labels %v, before %v", after, before)
	}

	agent.Signal(unix.SIGTERM)
	testnet.Eventually(t, 30*time.Second, func() bool {
		var trees []any
		out := r.run("r1", r.cli("tag", "trees", "-o", "json")...)
		return json.Unmarshal([]byte(out), &trees) == nil && len(trees) == 0
	}, "the end of the tree")
}
