package dataplane

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
)

// What a peer sends on of a connection that it has redirected here goes up, whoever's the user is; it goes to who was given the connection meanwhile. What is
// said so under another epoch has other ways.
func TestNetAgentProgramTakesWhatIsDiverted(t *testing.T) {
	const (
		final    = 0
		passed   = 1
		diverted = 3
		keeping  = "192.0.2.81"
	)
	n := testnet.New(t)
	node := n.Node("server")
	n.Link(node, "eth0", "10.2.0.1/24", n.Node("other"), "eth0", "")
	given := Flow{netip.MustParseAddrPort(evenUser + ":1000"), netip.MustParseAddrPort(keeping + ":80")}
	var a *agent
	err := node.Do(func() (err error) {
		a, err = asUnit(loadAgentPlane, AgentConfig{
			Interface: "eth0", VIPDevice: "lo", Bpffs: filepath.Join(n.BPFFS(), "agent"), Forward: Forward{Port: sitePort, Device: forwardDevice},
		})
		if err != nil {
			return err
		}
		err = a.Set([]AgentService{
			{VIP: addr(testVIP), Group: addr(webGroup), Ports: []Port{tcp(80)}, Accept: portion.Union{odd}},
			{VIP: addr(keeping), Tagged: true, Ports: []Port{tcp(80)}, Accept: portion.Union{odd}, Keeps: true},
		})
		if err != nil {
			return err
		}
		return a.SetFlows(map[Flow]netip.Addr{given: addr("10.2.0.9")})
	})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer node.Do(func() error { return a.Close(false) })
	segmentOf := func(dst string, port uint16) []byte {
		return packet{src: evenUser, dst: dst, proto: protoTCP, payload: segment(port, 80, flagACK, 7, 9, "x")}.frame()
	}
	for _, tt := range []struct {
		what    string
		frame   []byte
		epoch   uint32
		verdict uint32
	}{
		{"diverted, no connections are kept", segmentOf(webGroup, 1000), diverted, verdictNext},
		{"nothing of that service is sent on otherwise", segmentOf(webGroup, 1000), final, verdictDrop},
		{"diverted", segmentOf(keeping, 1001), diverted, verdictNext},
		{"diverted, and given to another", segmentOf(keeping, 1000), diverted, verdictRedirect},
		{"given to another, who does not know it", segmentOf(keeping, 1000), final, verdictNext},
		{"given back", segmentOf(keeping, 1000), passed, verdictDrop},
	} {
		t.Run(tt.what, func(t *testing.T) {
			context := struct{ _, _, Mark uint32 }{Mark: 0xb7<<24 | 9<<20 | tt.epoch} // of struct __sk_buff
			var verdict uint32
			err := node.Do(func() (err error) {
				verdict, err = a.coll.Programs[agentProgAgentIngress].Run(&ebpf.RunOptions{Data: tt.frame, DataOut: make([]byte, 256), Context: context})
				return err
			})
			if err != nil || verdict != tt.verdict {
				t.Errorf("verdict %#x, %v, want %#x", verdict, err, tt.verdict)
			}
		})
	}
	if c, err := a.Counters(); err != nil || c.ForwardedOn != 1 {
		t.Errorf("counted %+v, %v", c, err)
	}
}
