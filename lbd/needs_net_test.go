package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/testnet"
)

// A role that lacks a capability says so before it does anything else, and which.
func TestNetMissingCapabilities(t *testing.T) {
	n := testnet.New(t)
	node := n.Node("s1")
	agent := lbd(t, "agent", fmt.Sprintf("name = \"s1\"\ninterface = \"eth0\"\nstate_dir = %q\n[keys]\nunsigned = true\n", t.TempDir()))
	director := lbd(t, "director", fmt.Sprintf("interfaces = [\"eth0\"]\nstate_dir = %q\n", t.TempDir()))
	hearing := lbd(t, "director", fmt.Sprintf("interfaces = [\"eth0\"]\nstate_dir = %q\n[control]\ngroup = \"239.80.255.1\"\ninterfaces = [\"eth0\"]\n", t.TempDir()))
	client := newClientNet(t).argv()
	for _, tt := range []struct {
		argv []string
		drop string
	}{
		{agent, "net_admin"}, {agent, "net_raw"}, {agent, "bpf"}, {director, "net_admin"}, {director, "bpf"}, {hearing, "net_raw"},
		{client, "net_admin"}, {client, "bpf"},
	} {
		out, err := node.Run(append([]string{"setpriv", "--bounding-set=-" + tt.drop, "--inh-caps=-" + tt.drop}, tt.argv...)...)
		if want := "lacks CAP_" + strings.ToUpper(tt.drop) + " (to "; err == nil || !strings.Contains(out, want) {
			t.Errorf("%v without %s: %v, %s; want %q", tt.argv[3:], tt.drop, err, out, want)
		}
	}
}
