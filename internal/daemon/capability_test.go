package daemon

import (
	"strings"
	"testing"
)

func TestMissingCapabilities(t *testing.T) {
	needs := []Need{{NetAdmin, "attach programs"}, {BPF, "load programs"}}
	const netAdmin, bpf = 1 << 12, 1 << 39
	if err := missing(netAdmin|bpf, 1000, needs); err != nil {
		t.Errorf("with all: %v", err)
	}
	if err := missing(0, 1000, nil); err != nil {
		t.Errorf("nothing needed: %v", err)
	}
	for has, want := range map[uint64]string{
		netAdmin: "user id 1000 lacks CAP_BPF (to load programs):",
		bpf:      "user id 1000 lacks CAP_NET_ADMIN (to attach programs):",
		0:        "lacks CAP_NET_ADMIN (to attach programs) and CAP_BPF (to load programs):",
	} {
		err := missing(has, 1000, needs)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %#x: %v, want %q", has, err, want)
			continue
		}
		// The way out gives all, not what is missing alone: the list replaces the one in the unit.
		for _, way := range []string{"AmbientCapabilities=CAP_NET_ADMIN CAP_BPF ", "--ambient-caps +net_admin,+bpf;"} {
			if !strings.Contains(err.Error(), way) {
				t.Errorf("%v: want %q", err, way)
			}
		}
	}
}
