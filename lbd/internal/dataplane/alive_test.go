package dataplane

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// aliveServer is an agent's host where agents come and go.
type aliveServer struct {
	t     *testing.T
	node  *testnet.Node
	bpffs string
	agent *agent
}

func newAliveServer(t *testing.T) *aliveServer {
	net := testnet.New(t)
	s := &aliveServer{t: t, node: net.Node("server"), bpffs: filepath.Join(net.BPFFS(), "agent")}
	net.Link(s.node, "eth0", "10.2.0.1/24", net.Node("other"), "eth0", "")
	s.open()
	t.Cleanup(func() { s.close(false) })
	return s
}

func (s *aliveServer) do(f func() error) {
	s.t.Helper()
	if err := s.node.Do(f); err != nil {
		s.t.Fatalf("%+v", err)
	}
}

func (s *aliveServer) open() {
	s.t.Helper()
	s.do(func() (err error) {
		s.agent, err = asUnit(loadAgentPlane, AgentConfig{Interface: "eth0", VIPDevice: "lo", Bpffs: s.bpffs, Hold: time.Minute})
		return err
	})
}

func (s *aliveServer) close(keep bool) {
	s.t.Helper()
	s.do(func() error { return s.agent.Close(keep) })
}

// set makes web leased and dns not.
func (s *aliveServer) set() {
	s.t.Helper()
	services := agentServices(odd, odd)
	services[0].Leased = true
	s.do(func() error { return s.agent.Set(services) })
}

func (s *aliveServer) revive() {
	s.t.Helper()
	s.do(s.agent.Revive)
}

func (s *aliveServer) until() uint64 {
	s.t.Helper()
	var until uint64
	if err := s.agent.coll.Maps[agentMapAliveUntil].Lookup(uint32(0), &until); err != nil {
		s.t.Fatal(err)
	}
	return until
}

func (s *aliveServer) setUntil(until uint64) {
	s.t.Helper()
	if err := s.agent.coll.Maps[agentMapAliveUntil].Put(uint32(0), until); err != nil {
		s.t.Fatal(err)
	}
}

func (s *aliveServer) wantTaken(what string, web, dns bool) {
	s.t.Helper()
	for group, want := range map[string]bool{webGroup: web, dnsGroup: dns} {
		p := packet{src: testUser, dst: group, proto: protoTCP, payload: tcpSegment(1000, 80, 2, nil, "")}
		if group == dnsGroup {
			p.payload = tcpSegment(1000, 53, 2, nil, "")
		}
		verdict, _ := run(s.t, s.agent.coll.Programs[agentProgAgentIngress], p.frame())
		if taken := verdict == verdictNext; taken != want {
			s.t.Errorf("%s: packet to %s taken: %t, want %t", what, group, taken, want)
		}
	}
}

// TestNetLeasedUsersAreTakenWhileTheAgentIsAlive: what a leader would give to others ceases with the agent, the rest does not.
func TestNetLeasedUsersAreTakenWhileTheAgentIsAlive(t *testing.T) {
	s := newAliveServer(t)
	s.set()
	s.wantTaken("not alive yet", false, true)
	s.revive()
	s.wantTaken("at the start", true, true)
	s.setUntil(1)
	s.wantTaken("long silent", false, true)
	if c, err := s.agent.Counters(); err != nil || c.Lapsed != 2 || c.NotMine != 0 {
		t.Errorf("counted %+v, error %v, want two lapsed", c, err)
	}
	if err := s.agent.Renew(); !errors.Is(err, ErrLapsed) {
		t.Errorf("renewed too late: error %v, want that it has lapsed", err)
	}
	s.wantTaken("renewed too late", false, true)
	s.revive()
	s.wantTaken("revived", true, true)
	before := s.until()
	s.do(s.agent.Renew)
	if after := s.until(); after <= before {
		t.Errorf("renewed until %d, was until %d", after, before)
	}
}

// TestNetUsersInSteadAreTakenWhileTheAgentHears: a silent neighbour's users, of web. Neither a pause nor a next agent that has yet to hear of the
// neighbour prolongs that; of the agent's own, of dns, both do.
func TestNetUsersInSteadAreTakenWhileTheAgentHears(t *testing.T) {
	s := newAliveServer(t)
	services := agentServices(odd, odd)
	services[0].Leased, services[0].InStead, services[1].Leased = true, services[0].Accept, true
	set := func() { s.do(func() error { return s.agent.Set(services) }) }
	hearsUntil := func(until uint64) {
		if err := s.agent.coll.Maps[agentMapInSteadUntil].Put(uint32(0), until); err != nil {
			t.Fatal(err)
		}
	}
	set()
	s.revive()
	s.wantTaken("at the start", true, true)
	hearsUntil(1)
	s.do(s.agent.Renew)
	s.wantTaken("renewed", true, true)
	hearsUntil(1) // as if it ended during the pause
	s.do(func() error { return s.agent.Pause(time.Minute) })
	s.do(s.agent.Renew)
	s.wantTaken("paused", false, true)
	s.close(true)
	s.open()
	s.do(s.agent.Renew)
	s.wantTaken("the next agent, before it hears", false, true)
	set()
	s.do(s.agent.Renew)
	s.wantTaken("the next agent, which finds the neighbour silent", true, true)
}

// TestNetRoutersAloneBringUsersToTheVIP: nobody else sees these packets. They are taken whether the agent is alive or not, until routers bring them
// elsewhere.
func TestNetRoutersAloneBringUsersToTheVIP(t *testing.T) {
	s := newAliveServer(t)
	web := agentServices(odd, odd)[0]
	web.Leased, web.Tagged = true, true
	s.do(func() error { return s.agent.Set([]AgentService{web}) })
	s.revive()
	s.setUntil(1)
	for dst, want := range map[string]uint32{testVIP: verdictNext, webGroup: verdictDrop} {
		in := packet{src: testUser, dst: dst, proto: protoTCP, payload: tcpSegment(1000, 80, 2, nil, "")}
		if verdict, _ := run(t, s.agent.coll.Programs[agentProgAgentIngress], in.frame()); verdict != want {
			t.Errorf("a packet to %s: verdict %#x, want %#x", dst, verdict, want)
		}
	}
}

// TestNetNextAgentTakesTheTimeOver: a restart within the time loses nothing, even if the next agent has yet to learn what is its
// own; a later one waits for that.
func TestNetNextAgentTakesTheTimeOver(t *testing.T) {
	s := newAliveServer(t)
	s.set()
	s.revive()
	before := s.until()
	s.close(true)
	s.open()
	if after := s.until(); after <= before {
		t.Errorf("alive until %d, was until %d before the restart", after, before)
	}
	s.wantTaken("restarted in time", true, true)

	s.setUntil(1)
	s.close(true)
	s.open()
	s.wantTaken("restarted late", false, true)
	s.set()
	s.wantTaken("told what is its own", false, true)
	s.revive()
	s.wantTaken("and that it may", true, true)
}

// TestNetPauseOutlivesTheRestart: what the former agent asked for is neither cut by its own renewals nor by its follower's start.
func TestNetPauseOutlivesTheRestart(t *testing.T) {
	s := newAliveServer(t)
	s.set()
	if err := s.agent.Pause(time.Hour); !errors.Is(err, ErrLapsed) {
		t.Errorf("paused though never alive: error %v", err)
	}
	s.revive()
	s.do(func() error { return s.agent.Pause(time.Hour) })
	paused := s.until()
	s.do(s.agent.Renew)
	s.close(true)
	s.open()
	if after := s.until(); after != paused {
		t.Errorf("alive until %d after the restart, want %d as the former agent said", after, paused)
	}
	s.do(s.agent.Renew)
	if after := s.until(); after >= paused {
		t.Errorf("alive until %d after a renewal, want sooner than %d", after, paused)
	}
}
