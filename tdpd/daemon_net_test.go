package main

import (
	"os"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/testnet"
)

// TestNetWithoutMPLS: where the kernel has none, that is what tdpd says.
func TestNetWithoutMPLS(t *testing.T) {
	n := testnet.New(t)
	r := &rig{t: t, dir: t.TempDir(), nodes: map[string]*testnet.Node{"r1": n.Node("r1")}, daemons: map[string]*testnet.Process{}}
	// This kernel may have it: the settings are covered.
	p := r.nodes["r1"].Start("unshare", "-m", "sh", "-c", "mount -t tmpfs none /proc/sys/net && "+daemonEnv+`=1 exec "$0" --config "$1"`, os.Args[0], r.configure("r1"))
	err := p.Wait()
	if out := p.Output(); err == nil || !strings.Contains(out, "this kernel has no MPLS") || !strings.Contains(out, "mpls_router") {
		t.Errorf("%v\n%s", err, out)
	}
}
