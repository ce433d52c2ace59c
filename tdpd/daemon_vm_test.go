package main

import (
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
