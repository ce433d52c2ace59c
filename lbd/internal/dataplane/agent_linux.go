package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/manycast/manycast/internal/bpfnet"
	"github.com/manycast/manycast/internal/steer"
	"github.com/vishvananda/netlink"
)

// headers are the bytes of a segment that its MSS does not count: IPv4 and TCP without options (RFC 6691).
const headers = 40

// Owners of accepted users in a group's plan (MINE and MINE_WHILE_ALIVE of bpf/agent.bpf.c).
const (
	mine           steer.Owner = 1
	mineWhileAlive steer.Owner = 2
)

// agent is the AgentPlane of the kernel.
type agent struct {
	config AgentConfig
	spec   *ebpf.CollectionSpec
	coll   *ebpf.Collection
	steer  *steer.Maps
	host   host
	hooks  hooks
	paused atomic.Bool
}

// OpenAgent loads the agent's programs in the caller's network namespace. Nothing on the interface changes before the first
// Set: what a former agent left there goes on until then.
func OpenAgent(c AgentConfig) (AgentPlane, error) {
	if c.VIPDevice == "" {
		c.VIPDevice = "lo"
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
	if err := errors.Join(spec.Variables["mss_max"].Set(mss), spec.Variables["own_mac"].Set(mac(link))); err != nil {
		return nil, err
	}
	coll, err := loadPinned(spec, c.Bpffs, agentMapUndo, logger(c.Log))
	if err != nil {
		return nil, err
	}
	plans, err := steer.NewMaps(coll.Maps)
	if err != nil {
		coll.Close()
		return nil, err
	}
	a := &agent{
		config: c, spec: spec, coll: coll, steer: plans,
		host:  host{undo: coll.Maps[agentMapUndo]},
		hooks: hooks{dir: c.Bpffs, options: bpfnet.Options{Name: "manycast-agent"}},
	}
	if err := a.takeOver(); err != nil {
		coll.Close()
		return nil, err
	}
	return a, nil
}

// serviceMapValue is struct service of bpf/agent.bpf.c.
type serviceMapValue struct{ VIP, Name [4]byte }

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
	return uint16(mtu - headers), nil
}

// Prepare reserves slot tables: where loser and winner are on one link, users wait for the winner's Set.
func (a *agent) Prepare(services []AgentService) error {
	if err := checkAgent(services); err != nil {
		return err
	}
	plans, err := compile(services, a.config.Hold > 0)
	if err == nil {
		err = a.steer.Reserve(plans)
	}
	if err != nil {
		return fmt.Errorf("agent: prepare: %w", err)
	}
	return nil
}

// Set puts VIPs and ARP settings in place, then the maps, then the programs; what is not wanted any more goes last.
func (a *agent) Set(services []AgentService) error {
	if err := checkAgent(services); err != nil {
		return err
	}
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
	if err := errors.Join(a.attach(), a.host.undoExcept(changes)); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

func compile(services []AgentService, isLapsing bool) (map[netip.Addr]*steer.Plan, error) {
	plans := make(map[netip.Addr]*steer.Plan, len(services))
	for _, s := range services {
		owner := mine
		if s.Leased && isLapsing {
			owner = mineWhileAlive
		}
		claims := make([]steer.Claim, len(s.Accept))
		for i, set := range s.Accept {
			claims[i] = steer.Claim{Owner: owner, Set: set}
		}
		plan, err := steer.Compile(claims)
		if err != nil {
			return nil, fmt.Errorf("accepted users of group %s: %w", s.Group, err)
		}
		if s.Group.IsValid() {
			plans[s.Group] = plan
		}
	}
	return plans, nil
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
	return changes, nil
}

// write makes the maps match. The groups come last: a group is not ours before its ports and plan are known.
func (a *agent) write(services []AgentService, plans map[netip.Addr]*steer.Plan) error {
	groups := make(map[[4]byte]serviceMapValue, len(services))
	ports := make(map[portMapKey][4]byte)
	named := make(map[[4]byte]bool, len(services))
	for _, s := range services {
		value := serviceMapValue{s.VIP.As4(), s.name().As4()}
		if s.Group.IsValid() {
			groups[s.Group.As4()] = value
		}
		if s.Tagged {
			groups[s.VIP.As4()] = value
		}
		for _, p := range s.Ports {
			ports[newPortMapKey(s.VIP, p)] = value.Name
		}
		named[value.Name] = true
	}
	return errors.Join(
		syncMap(a.coll.Maps[agentMapServices], ports),
		a.steer.Set(plans),
		a.setCounted(named),
		syncMap(a.coll.Maps[agentMapGroups], groups))
}

func (a *agent) attach() error {
	return a.hooks.set([]hook{
		{a.config.Interface, bpfnet.Egress, a.coll.Programs[agentProgAgentEgress]},
		{a.config.Interface, bpfnet.Ingress, a.coll.Programs[agentProgAgentIngress]},
	})
}

// Counters adds up what the CPUs counted.
func (a *agent) Counters() (AgentCounters, error) {
	var total AgentCounters
	err := addCounters(a.coll.Maps[agentMapCounters], func(c AgentCounters) {
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
	})
	return total, err
}

// Close keeps all in place or takes all of it away, the VIPs last.
func (a *agent) Close(keep bool) error {
	defer a.coll.Close()
	if keep {
		return a.hooks.close()
	}
	_ = a.attach() // only so does it hold what a former process left; an interface that is gone has no program to take off
	return errors.Join(a.hooks.set(nil), a.host.undoExcept(nil), removePins(a.spec, a.config.Bpffs))
}
