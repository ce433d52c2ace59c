package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/manycast/manycast/internal/bpfnet"
)

const (
	forwardDevice = "manycast0"
	forwardIdle   = 30 * time.Second
	tunnelLen     = 50 // bytes that VXLAN puts in front of a packet: IPv4, UDP, VXLAN, Ethernet (RFC 7348 section 5)
)

// errNotForwarding is for who asks for more before the first Set, or with no port.
var errNotForwarding = errors.New("nothing is forwarded here: no port for it is set, or no services are yet")

// forwardMapValue is struct forwarding of bpf/forward.h.
type forwardMapValue struct{ Device, Main, Local, Flows uint32 }

// gateMapValue is struct gate of bpf/forward.h.
type gateMapValue struct{ Kind, To uint32 }

const (
	gateHold = 1 + iota
	gateOpening
	gatePass
	gateLead
	gateArmed
)

// forwarder is the Forwarder of the kernel.
type forwarder struct {
	config Forward
	coll   *ebpf.Collection
	strays *strayReader
	holder holder

	mu    sync.Mutex
	state forwardMapValue
	gates map[Flow]uint32 // kinds
}

// openForwarder takes owners of flows over from a former process, and ends its gates.
func openForwarder(c Forward, coll *ebpf.Collection, own [6]byte) (*forwarder, error) {
	f := &forwarder{config: c, coll: coll, gates: make(map[Flow]uint32)}
	f.holder.own, f.holder.queues = own, make(map[Flow]*queue)
	if err := coll.Maps[agentMapForwarding].Lookup(uint32(0), &f.state); err != nil {
		return nil, fmt.Errorf("read how packets are forwarded: %w", err)
	}
	var (
		key  flowMapKey
		gate gateMapValue
	)
	entries := coll.Maps[agentMapFlows].Iterate()
	for entries.Next(&key, &gate) {
		f.gates[key.flow()] = gate.Kind
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read gates: %w", err)
	}
	if err := f.endGates(); err != nil {
		return nil, err
	}
	var err error
	f.strays, err = readStrays(coll.Maps[agentMapStrays])
	return f, err
}

// endGates ends all but owners of flows: what a former process held is lost, and what it passed on it does not pass on any more.
func (f *forwarder) endGates() error {
	var ended []Flow
	for flow, kind := range f.gates {
		if kind != gateLead {
			ended = append(ended, flow)
		}
	}
	return f.remove(ended)
}

// use is called with the device once it is there, and with 0 when nothing is forwarded any more.
func (f *forwarder) use(device, main int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if device != 0 {
		if err := f.holder.openOn(device); err != nil {
			return err
		}
	}
	f.state.Device, f.state.Main, f.state.Local = uint32(device), uint32(main), 0
	if f.config.Address.IsValid() {
		f.state.Local = hostOrder(f.config.Address)
	}
	return f.writeState()
}

func (f *forwarder) writeState() error {
	f.state.Flows = uint32(len(f.gates))
	if err := f.coll.Maps[agentMapForwarding].Put(uint32(0), f.state); err != nil {
		return fmt.Errorf("write how packets are forwarded: %w", err)
	}
	return nil
}

// hooks are the programs of our device.
func (f *forwarder) hooks(device string) []hook {
	return []hook{
		{device, bpfnet.Egress, f.coll.Programs[agentProgForwardEgress]},
		{device, bpfnet.Ingress, f.coll.Programs[agentProgForwardIngress]},
	}
}

// SetPeers writes the map.
func (f *forwarder) SetPeers(servers []netip.Addr) error {
	if err := checkServers(servers...); err != nil {
		return err
	}
	peers := make(map[uint32]uint32, len(servers))
	for _, s := range servers {
		peers[hostOrder(s)] = 1
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return bpfnet.SyncMap(f.coll.Maps[agentMapPeers], peers)
}

// Pass lets go of what was held of these flows: it is not known here any more.
func (f *forwarder) Pass(flows []Flow, to netip.Addr) error {
	if err := errors.Join(checkFlows(flows), checkServers(to)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, flow := range flows {
		if err := f.put(flow, gateMapValue{gatePass, hostOrder(to)}); err != nil {
			return err
		}
		f.holder.drop(flow)
	}
	return nil
}

// SetFlows writes them beside those that are there.
func (f *forwarder) SetFlows(owners map[Flow]netip.Addr) error {
	for flow, owner := range owners {
		if err := errors.Join(checkFlow(flow), checkServers(owner)); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for flow, owner := range owners {
		if err := f.put(flow, gateMapValue{gateLead, hostOrder(owner)}); err != nil {
			return err
		}
	}
	return nil
}

// DropFlows leaves gates alone.
func (f *forwarder) DropFlows(flows []Flow) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var leads []Flow
	for _, flow := range flows {
		if f.gates[flow] == gateLead {
			leads = append(leads, flow)
		}
	}
	return f.remove(leads)
}

// put writes a gate. That there are any the programs know before.
func (f *forwarder) put(flow Flow, gate gateMapValue) error {
	if f.state.Device == 0 {
		return errNotForwarding
	}
	_, had := f.gates[flow]
	f.gates[flow] = gate.Kind
	if !had && len(f.gates) == 1 {
		if err := f.writeState(); err != nil {
			return err
		}
	}
	if err := f.coll.Maps[agentMapFlows].Put(newFlowMapKey(flow), gate); err != nil {
		if !had {
			delete(f.gates, flow)
		}
		return fmt.Errorf("gate of %s: %w", flow, err)
	}
	return nil
}

// remove removes gates of whatever kind, and all that was for them.
func (f *forwarder) remove(flows []Flow) error {
	var errs []error
	for _, flow := range flows {
		if _, ok := f.gates[flow]; !ok {
			continue
		}
		if err := f.coll.Maps[agentMapFlows].Delete(newFlowMapKey(flow)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("gate of %s: %w", flow, err))
			continue
		}
		delete(f.gates, flow)
	}
	errs = append(errs, f.forget(flows))
	if len(f.gates) == 0 {
		errs = append(errs, f.writeState())
	}
	return errors.Join(errs...)
}

// forget ends what was for holding flows.
func (f *forwarder) forget(flows []Flow) error {
	var errs []error
	for _, flow := range flows {
		f.holder.forget(flow)
		err := f.coll.Maps[agentMapHoldings].Delete(newFlowMapKey(flow))
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("what is held of %s: %w", flow, err))
		}
	}
	return errors.Join(errs...)
}

// close ends gates and the goroutines.
func (f *forwarder) close() error {
	f.mu.Lock()
	err := f.endGates()
	f.mu.Unlock()
	return errors.Join(err, f.holder.close(), f.strays.close())
}
