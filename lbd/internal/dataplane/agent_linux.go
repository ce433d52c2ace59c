package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/manycast/manycast/internal/bpfnet"
	"github.com/manycast/manycast/internal/steer"
	"github.com/vishvananda/netlink"
)

// headers are the bytes of a segment that its MSS does not count: IPv4 and TCP without options (RFC 6691).
const headers = 40

// Owners of accepted users in a group's plan (MINE and those after it of bpf/agent.bpf.c).
const (
	mine           steer.Owner = 1
	mineWhileAlive steer.Owner = 2
	mineInStead    steer.Owner = 3
)

// agent is the AgentPlane of the kernel.
type agent struct {
	config AgentConfig
	spec   *ebpf.CollectionSpec
	coll   *ebpf.Collection
	steer  *steer.Maps
	chains *chainTable
	plans  map[netip.Addr]*steer.Plan // in force; nil before the first Set
	host   host
	hooks  hooks
	paused atomic.Bool
	isSet  atomic.Bool // what is accepted is of this agent, which hears
	*forwarder
}

// OpenAgent loads the agent's programs in the caller's network namespace. Nothing on the interface changes before the first
// Set: what a former agent left there goes on until then.
func OpenAgent(c AgentConfig) (AgentPlane, error) {
	if c.VIPDevice == "" {
		c.VIPDevice = "lo"
	}
	if c.Forward.Device == "" {
		c.Forward.Device = forwardDevice
	}
	if c.Forward.Idle == 0 {
		c.Forward.Idle = forwardIdle
	}
	a, err := loadAgentPlane(c)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return a, nil
}

func loadAgentPlane(c AgentConfig) (*agent, error) {
	link, err := ethernetLink(c.Interface)
	if err != nil {
		return nil, err
	}
	mss, err := mssMax(c, link.MTU)
	if err != nil {
		return nil, err
	}
	if err := bpfnet.PinDir(c.Bpffs); err != nil {
		return nil, err
	}
	spec, err := loadAgent()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(spec.Variables["mss_max"].Set(mss), spec.Variables["own_mac"].Set(mac(link)),
		spec.Variables["flow_idle"].Set(uint64(c.Forward.Idle))); err != nil {
		return nil, err
	}
	if c.Forward.Port == 0 {
		spec.Maps[agentMapSeen].MaxEntries = 1 // it takes its memory at once
	}
	coll, err := loadPinned(spec, c.Bpffs, agentMapUndo, logger(c.Log))
	if err != nil {
		return nil, err
	}
	a := &agent{
		config: c, spec: spec, coll: coll,
		host:  host{undo: coll.Maps[agentMapUndo]},
		hooks: hooks{dir: c.Bpffs, options: bpfnet.Options{Name: "manycast-agent"}},
	}
	if err := a.takeOverAll(mac(link)); err != nil {
		coll.Close()
		return nil, err
	}
	return a, nil
}

// takeOverAll goes on with what a former agent has left in the maps.
func (a *agent) takeOverAll(own [6]byte) (err error) {
	if a.steer, err = steer.NewMaps(a.coll.Maps); err != nil {
		return err
	}
	if a.chains, err = openChains(a.coll.Maps[agentMapChains], a.coll.Maps[agentMapGroups]); err != nil {
		return err
	}
	if err = a.takeOver(); err != nil {
		return err
	}
	a.forwarder, err = openForwarder(a.config.Forward, a.coll, own)
	return err
}

// serviceMapValue is struct service of bpf/agent.bpf.c.
type serviceMapValue struct{ VIP, Name, Chains [4]byte }

// mac is the address of an Ethernet interface; zero where it has none.
func mac(link *netlink.LinkAttrs) (address [6]byte) {
	copy(address[:], link.HardwareAddr)
	return address
}

// mssMax is what answers may announce at most, bytes.
func mssMax(c AgentConfig, linkMTU int) (uint16, error) {
	mtu := c.PathMTU
	if mtu == 0 {
		mtu = linkMTU
	}
	// 68 bytes is the least that IPv4 demands of a link (RFC 791); 65535 the longest packet.
	if mtu < 68 || mtu > 65535 {
		return 0, fmt.Errorf("path MTU %d of interface %s: want 68 to 65535 bytes", mtu, c.Interface)
	}
	if c.Forward.Port != 0 {
		mtu = max(mtu-tunnelLen, 68) // what is forwarded goes in one piece
	}
	return uint16(mtu - headers), nil
}

// Prepare reserves slot tables: where loser and winner are on one link, users wait for the winner's Set. Chains come into force beside
// the plans that are: services that have none yet do not look at them.
func (a *agent) Prepare(services []AgentService) error {
	if err := checkAgent(services); err != nil {
		return err
	}
	services = a.kept(services)
	plans, err := compile(services, a.config.Hold > 0)
	if err == nil {
		err = a.steer.Reserve(plans)
	}
	if err == nil && a.plans != nil { // before the first Set it is not known which are in force
		err = a.prepareChains(services)
	}
	if err != nil {
		return fmt.Errorf("agent: prepare: %w", err)
	}
	return nil
}

func (a *agent) prepareChains(services []AgentService) error {
	a.chains.free()
	plans := maps.Clone(a.plans)
	if err := a.compileChains(services, plans); err != nil {
		return err
	}
	if err := a.steer.Set(plans); err != nil {
		return err
	}
	a.plans = plans
	return nil
}

// kept are the services as they are where nothing is forwarded.
func (a *agent) kept(services []AgentService) []AgentService {
	if a.config.Forward.Port != 0 {
		return services
	}
	services = slices.Clone(services)
	for i := range services {
		services[i].Keeps, services[i].Chains = false, nil
	}
	return services
}

// Set puts VIPs, ARP settings and our device in place, then the maps, then the programs; what is not wanted any more goes last.
func (a *agent) Set(services []AgentService) error {
	if err := checkAgent(services); err != nil {
		return err
	}
	services = a.kept(services)
	plans, err := compile(services, a.config.Hold > 0)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	changes, err := a.prepareHost(services)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := a.write(services, plans); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	a.isSet.Store(true)
	if err := errors.Join(a.attach(), a.host.undoExcept(changes)); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

// compile makes the plans of accepted users. What comes to the VIP by trees needs none, but where connections are kept.
func compile(services []AgentService, isLapsing bool) (map[netip.Addr]*steer.Plan, error) {
	plans := make(map[netip.Addr]*steer.Plan, len(services))
	for _, s := range services {
		owner, inStead := mine, mine
		if s.Leased && isLapsing {
			owner, inStead = mineWhileAlive, mineInStead
		}
		var claims []steer.Claim
		for _, set := range s.Accept {
			claims = append(claims, steer.Claim{Owner: owner, Set: set})
		}
		for _, set := range s.InStead {
			claims = append(claims, steer.Claim{Owner: inStead, Set: set, Rank: 1})
		}
		plan, err := steer.Compile(claims)
		if err != nil {
			return nil, fmt.Errorf("accepted users of group %s: %w", s.Group, err)
		}
		if s.Group.IsValid() || s.Keeps {
			plans[s.name()] = plan
		}
	}
	return plans, nil
}

// compileChains writes the chains of services, and adds their plans.
func (a *agent) compileChains(services []AgentService, plans map[netip.Addr]*steer.Plan) error {
	for _, s := range services {
		if !s.Keeps {
			continue
		}
		key, plan, err := a.chains.compile(s)
		if err != nil {
			return err
		}
		plans[key] = plan
	}
	return nil
}

// prepareHost makes the host take packets for the VIPs without answering ARP for them: on one LAN all servers have them.
func (a *agent) prepareHost(services []AgentService) (map[change]bool, error) {
	changes := make(map[change]bool)
	for key, value := range map[string]string{"arp_ignore": "1", "arp_announce": "2"} {
		c, err := a.host.setSysctl(a.config.Interface, key, value)
		if err != nil {
			return nil, err
		}
		changes[c] = true
	}
	for _, s := range services {
		c, err := a.host.addVIP(a.config.VIPDevice, s.VIP)
		if err != nil {
			return nil, err
		}
		changes[c] = true
		if !s.VIP6.IsValid() {
			continue
		}
		if c, err = a.host.addVIP(a.config.VIPDevice, s.VIP6); err != nil {
			return nil, err
		}
		changes[c] = true
	}
	return changes, a.prepareForwarding(changes)
}

// prepareForwarding makes our device, where anything is forwarded.
func (a *agent) prepareForwarding(changes map[change]bool) error {
	if a.config.Forward.Port == 0 {
		return a.use(0, 0)
	}
	main, err := ethernet(a.config.Interface)
	if err != nil {
		return err
	}
	c, device, err := a.host.addVXLAN(a.config.Forward.Device, a.config.Forward.Port)
	if err != nil {
		return err
	}
	changes[c] = true
	return a.use(device, main)
}

// write makes the maps match. The groups come last: a group is not ours before its ports and plan are known.
func (a *agent) write(services []AgentService, plans map[netip.Addr]*steer.Plan) error {
	a.chains.free()
	if err := a.compileChains(services, plans); err != nil {
		return err
	}
	groups := make(map[[4]byte]serviceMapValue, len(services))
	groups6 := make(map[[16]byte]serviceMapValue)
	ports := make(map[portMapKey][4]byte)
	named, keeping := make(map[[4]byte]bool, len(services)), make(map[[4]byte]bool)
	for _, s := range services {
		value := serviceMapValue{VIP: s.VIP.As4(), Name: s.name().As4()}
		if s.Keeps {
			value.Chains = a.chains.keys[value.Name]
			keeping[value.Name] = true
		}
		if s.Group.IsValid() {
			groups[s.Group.As4()] = value
		}
		if s.Tagged {
			groups[s.VIP.As4()] = value
		}
		if s.Keeps && s.VIP6.IsValid() {
			groups6[s.VIP6.As16()] = value
		}
		for _, p := range s.Ports {
			ports[newPortMapKey(s.VIP, p)] = value.Name
		}
		named[value.Name] = true
	}
	err := errors.Join(
		bpfnet.SyncMap(a.coll.Maps[agentMapServices], ports),
		a.setChainsFirst(plans),
		a.steer.Set(plans),
		a.setCounted(named),
		bpfnet.SyncMap(a.coll.Maps[agentMapGroups6], groups6),
		bpfnet.SyncMap(a.coll.Maps[agentMapGroups], groups))
	if err == nil {
		a.plans = plans
		a.chains.retire(keeping)
	}
	return err
}

// setChainsFirst puts the chains of plans in force beside the accepted users of before: the first packet of a user who is won may be of a
// connection that is elsewhere.
func (a *agent) setChainsFirst(plans map[netip.Addr]*steer.Plan) error {
	if a.plans == nil {
		return nil // it is not known which are in force
	}
	first := maps.Clone(a.plans)
	for _, key := range a.chains.keys {
		if plan := plans[netip.AddrFrom4(key)]; plan != nil {
			first[netip.AddrFrom4(key)] = plan
		}
	}
	return a.steer.Set(first)
}

func (a *agent) attach() error {
	return a.hooks.set(append(a.mainHooks(), a.deviceHooks()...))
}

func (a *agent) mainHooks() []hook {
	return []hook{
		{a.config.Interface, bpfnet.Egress, a.coll.Programs[agentProgAgentEgress]},
		{a.config.Interface, bpfnet.Ingress, a.coll.Programs[agentProgAgentIngress]},
	}
}

func (a *agent) deviceHooks() []hook {
	if a.config.Forward.Port == 0 {
		return nil
	}
	return a.forwarder.hooks(a.config.Forward.Device)
}

// Counters adds up what the CPUs counted.
func (a *agent) Counters() (AgentCounters, error) {
	var total AgentCounters
	err := bpfnet.AddCounters(a.coll.Maps[agentMapCounters], func(c AgentCounters) {
		total.Delivered += c.Delivered
		total.Bytes += c.Bytes
		total.Fragments += c.Fragments
		total.ICMPErrors += c.ICMPErrors
		total.NotMine += c.NotMine
		total.NoPort += c.NoPort
		total.Malformed += c.Malformed
		total.Clamped += c.Clamped
		total.Lapsed += c.Lapsed
		total.Shed += c.Shed
		total.ForwardedOut += c.ForwardedOut
		total.ForwardedOn += c.ForwardedOn
		total.ForwardedIn += c.ForwardedIn
		total.ForwardReturned += c.ForwardReturned
		total.ForwardEnded += c.ForwardEnded
		total.ForwardFailed += c.ForwardFailed
		total.NotPeer += c.NotPeer
		total.HopsSpent += c.HopsSpent
		total.Held += c.Held
		total.Passed += c.Passed
		total.Strays += c.Strays
		total.StraysLost += c.StraysLost
		total.FragmentsFollowed += c.FragmentsFollowed
		total.Redirected += c.Redirected
	})
	total.HeldLost += a.holder.dropped()
	total.StraysLost += a.strays.lost.Load()
	return total, err
}

// Close keeps all in place or takes all of it away, the VIPs last.
func (a *agent) Close(keep bool) error {
	defer a.coll.Close()
	ended := a.close()
	if keep {
		return errors.Join(ended, a.hooks.close())
	}
	_ = a.attach() // only so does it hold what a former process left; an interface that is gone has no program to take off
	return errors.Join(ended, a.hooks.set(nil), a.host.undoExcept(nil), removePins(a.spec, a.config.Bpffs))
}
