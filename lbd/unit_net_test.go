package main

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// asUnit has a command line run with a unit's capabilities and no other.
func asUnit(t *testing.T, unit string, argv []string) []string {
	t.Helper()
	text, err := os.ReadFile("../tools/packaging/systemd/" + unit)
	must(t, err)
	var sets []string
	for _, key := range []string{"AmbientCapabilities", "CapabilityBoundingSet"} {
		m := regexp.MustCompile(`(?m)^` + key + `=(.*)$`).FindStringSubmatch(string(text))
		if m == nil {
			t.Fatalf("%s has no %s", unit, key)
		}
		sets = append(sets, "-all,+"+strings.ReplaceAll(strings.ToLower(strings.ReplaceAll(m[1], "CAP_", "")), " ", ",+"))
	}
	return append([]string{"setpriv", "--inh-caps=" + sets[0], "--ambient-caps=" + sets[0], "--bounding-set=" + sets[1], "--no-new-privs"}, argv...)
}

// TestNetAgentTellsWhoListensAlready: with the unit's capabilities, an application that listened before its agent makes connections that can move.
func TestNetAgentTellsWhoListensAlready(t *testing.T) {
	a := newDynamicAgents(t)
	l, err := a.nodes["s1"].Listen("tcp4", "0.0.0.0:80")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go echoAll(l)
	a.start(dynamicWeb, func(_ string, argv []string) []string { return asUnit(t, "manycast-agent.service", argv) })
	client := a.client()
	testnet.Eventually(t, 20*time.Second, func() bool {
		return echoes(t, a.user, dynamicVIP) && livesAt(t, client, netip.MustParseAddrPort("10.9.0.1:80"))
	}, "a connection that lives at s1's own address")
	a.stop()
}
