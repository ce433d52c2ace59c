package dataplane

import (
	"net/netip"
	"slices"
	"sync"
)

// Gate is what a FakeAgent does with the packets of a flow.
type Gate struct {
	Held  bool
	Armed bool
	Pass  netip.Addr // valid: passed on to that server
	Lead  netip.Addr // valid: that server's, as SetFlows said
}

// forwards is the Forwarder of a FakeAgent: it checks as the real one does, and records.
type forwards struct {
	lock     sync.Mutex
	ended    bool
	peers    []netip.Addr
	gates    map[Flow]Gate
	released []Flow
	known    map[Flow]bool
	injected [][]byte
	strays   chan Stray
	users    []netip.AddrPort // of flows of UDP
}

func newForwards() forwards {
	return forwards{gates: make(map[Flow]Gate), known: make(map[Flow]bool), strays: make(chan Stray, 64)}
}

// change locks, and calls do unless the fake is closed or what it was given is wrong.
func (f *forwards) change(wrong error, do func()) error {
	f.lock.Lock()
	defer f.lock.Unlock()
	if f.ended {
		return errClosed
	}
	if wrong == nil {
		do()
	}
	return wrong
}

// SetPeers records them; Peers has them.
func (f *forwards) SetPeers(servers []netip.Addr) error {
	return f.change(checkServers(servers...), func() { f.peers = slices.Clone(servers) })
}

// Peers returns what SetPeers said last.
func (f *forwards) Peers() []netip.Addr {
	f.lock.Lock()
	defer f.lock.Unlock()
	return slices.Clone(f.peers)
}

// Hold records gates; Gate has them.
func (f *forwards) Hold(flows []Flow) error {
	return f.change(checkFlows(flows), func() { f.set(flows, Gate{Held: true}) })
}

// Arm records gates.
func (f *forwards) Arm(flows []Flow) error {
	return f.change(checkFlows(flows), func() { f.set(flows, Gate{Armed: true}) })
}

// Pass records gates.
func (f *forwards) Pass(flows []Flow, to netip.Addr) error {
	wrong := checkFlows(flows)
	if wrong == nil {
		wrong = checkServers(to)
	}
	return f.change(wrong, func() { f.set(flows, Gate{Pass: to}) })
}

func (f *forwards) set(flows []Flow, g Gate) {
	for _, flow := range flows {
		f.gates[flow] = g
	}
}

// Release removes gates, and records them.
func (f *forwards) Release(flows []Flow) error {
	return f.change(checkFlows(flows), func() {
		for _, flow := range flows {
			if !f.gates[flow].Lead.IsValid() {
				delete(f.gates, flow)
				f.released = append(f.released, flow)
			}
		}
	})
}

// Abandon removes gates.
func (f *forwards) Abandon(flows []Flow) error {
	return f.change(checkFlows(flows), func() {
		for _, flow := range flows {
			if !f.gates[flow].Lead.IsValid() {
				delete(f.gates, flow)
			}
		}
	})
}

// Released returns all flows that were released, in their order.
func (f *forwards) Released() []Flow {
	f.lock.Lock()
	defer f.lock.Unlock()
	return slices.Clone(f.released)
}

// SetFlows records owners of flows.
func (f *forwards) SetFlows(owners map[Flow]netip.Addr) error {
	var wrong error
	for flow, owner := range owners {
		if wrong == nil {
			wrong = checkFlow(flow)
		}
		if wrong == nil {
			wrong = checkServers(owner)
		}
	}
	return f.change(wrong, func() {
		for flow, owner := range owners {
			f.gates[flow] = Gate{Lead: owner}
		}
	})
}

// DropFlows removes owners of flows.
func (f *forwards) DropFlows(flows []Flow) error {
	return f.change(checkFlows(flows), func() {
		for _, flow := range flows {
			if f.gates[flow].Lead.IsValid() {
				delete(f.gates, flow)
			}
		}
	})
}

// Gate returns what is done with the packets of a flow; zero: what the services say.
func (f *forwards) Gate(flow Flow) Gate {
	f.lock.Lock()
	defer f.lock.Unlock()
	return f.gates[flow]
}

// Gates returns how many flows have one.
func (f *forwards) Gates() int {
	f.lock.Lock()
	defer f.lock.Unlock()
	return len(f.gates)
}

// Strays gives what Stray was given.
func (f *forwards) Strays() <-chan Stray {
	f.lock.Lock()
	defer f.lock.Unlock()
	return f.strays
}

// Stray is a packet that comes out of Strays; when nobody reads them it is lost.
func (f *forwards) Stray(s Stray) {
	f.lock.Lock()
	defer f.lock.Unlock()
	if f.ended {
		return
	}
	select {
	case f.strays <- s:
	default:
	}
}

// Inject records the frame.
func (f *forwards) Inject(frame []byte) error {
	return f.change(nil, func() { f.injected = append(f.injected, slices.Clone(frame)) })
}

// Injected returns the frames of Inject, in their order.
func (f *forwards) Injected() [][]byte {
	f.lock.Lock()
	defer f.lock.Unlock()
	return slices.Clone(f.injected)
}

// Knows says what SetKnown said.
func (f *forwards) Knows(flow Flow) (bool, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	return f.known[flow], checkFlow(flow)
}

// SetKnown says whether the socket table has a connection.
func (f *forwards) SetKnown(flow Flow, known bool) {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.known[flow] = known
}

// close ends gates, as the real one does.
func (f *forwards) close() {
	f.lock.Lock()
	defer f.lock.Unlock()
	if f.ended {
		return
	}
	f.ended = true
	close(f.strays)
	for flow, g := range f.gates {
		if !g.Lead.IsValid() {
			delete(f.gates, flow)
		}
	}
}

func (f *forwards) open() {
	f.lock.Lock()
	defer f.lock.Unlock()
	if f.ended {
		f.ended, f.strays = false, make(chan Stray, 64)
	}
}

// FlowUsers returns what SetFlowUsers said.
func (f *forwards) FlowUsers([]netip.Addr, []Port) ([]netip.AddrPort, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	return slices.Clone(f.users), nil
}

// SetFlowUsers says what FlowUsers answers.
func (f *forwards) SetFlowUsers(users []netip.AddrPort) {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.users = users
}
