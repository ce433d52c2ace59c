package dataplane

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
)

// A service that is reached by trees has its VIPs of both families on the server, its IPv6 one until the service has none.
func TestNetVIPsOfBothFamilies(t *testing.T) {
	net := testnet.New(t)
	node := net.Node("server")
	net.Link(node, "eth0", "10.2.0.1/24", net.Node("other"), "eth0", "")
	service := AgentService{VIP: addr(testVIP), VIP6: addr("2001:db8::80"), Ports: []Port{tcp(80)}, Tagged: true, Accept: portion.Union{odd}}
	has := func(when string, four, six bool) {
		t.Helper()
		out, err := node.Run("ip", "-o", "addr", "show", "dev", "lo")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, testVIP+"/32") != four || strings.Contains(out, "2001:db8::80/128") != six {
			t.Errorf("%s: want IPv4 %t, IPv6 %t; lo has\n%s", when, four, six, out)
		}
	}
	var a *agent
	set := func(s AgentService) error { return a.Set([]AgentService{s}) }
	err := node.Do(func() (err error) {
		a, err = asUnit(loadAgentPlane, AgentConfig{Interface: "eth0", VIPDevice: "lo", Bpffs: filepath.Join(net.BPFFS(), "agent")})
		if err != nil {
			return err
		}
		return set(service)
	})
	if err != nil {
		t.Fatal(err)
	}
	has("set", true, true)
	four := service
	four.VIP6 = netip.Addr{}
	if err := node.Do(func() error { return set(four) }); err != nil {
		t.Fatal(err)
	}
	has("without IPv6", true, false)
	if err := node.Do(func() error { return set(service) }); err != nil {
		t.Fatal(err)
	}
	if err := node.Do(func() error { return a.Close(false) }); err != nil {
		t.Fatal(err)
	}
	has("closed", false, false)
	for _, wrong := range []AgentService{{VIP: addr(testVIP), Ports: []Port{tcp(80)}}, {VIP: addr(testVIP), VIP6: addr("192.0.2.81"), Tagged: true, Ports: []Port{tcp(80)}}} {
		if err := checkAgent([]AgentService{wrong}); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
}
