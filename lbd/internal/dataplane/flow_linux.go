package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// flowMapKey is struct flow of bpf/flow.h.
type flowMapKey struct {
	User, VIP         [16]byte
	UserPort, VIPPort [2]byte
	Proto             uint32
}

func newFlowMapKey(f Flow) flowMapKey {
	k := flowMapKey{User: f.User.Addr().As16(), VIP: f.VIP.Addr().As16(), Proto: protoTCP}
	binary.BigEndian.PutUint16(k.UserPort[:], f.User.Port())
	binary.BigEndian.PutUint16(k.VIPPort[:], f.VIP.Port())
	return k
}

func (k flowMapKey) flow() Flow {
	at := func(address [16]byte, port [2]byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(address).Unmap(), binary.BigEndian.Uint16(port[:]))
	}
	return Flow{User: at(k.User, k.UserPort), VIP: at(k.VIP, k.VIPPort)}
}

// flowsBatch is how many flows are read at a time: no bucket of the map has more.
const flowsBatch = 4096

// FlowUsers reads what the program has seen.
func (a *agent) FlowUsers(vips []netip.Addr, ports []Port) (users []netip.AddrPort, err error) {
	now, err := sinceBoot()
	if err != nil {
		return nil, err
	}
	var cursor ebpf.MapBatchCursor
	keys, times := make([]flowMapKey, flowsBatch), make([]uint64, flowsBatch)
	for {
		n, err := a.coll.Maps[agentMapSeen].BatchLookup(&cursor, keys, times, nil)
		for i, k := range keys[:n] {
			f := k.flow()
			if now-time.Duration(times[i]) < a.config.Forward.Idle && slices.Contains(vips, f.VIP.Addr()) && slices.Contains(ports, Port{Proto: "udp", Number: f.VIP.Port()}) {
				users = append(users, f.User)
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return users, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read flows of UDP: %w", err)
		}
	}
}

const (
	ethernetLen = 14
	ipv4Len     = 20
	ipv6Len     = 40
)

// flowOf is the connection that a frame to a VIP is of; false: it is not a whole TCP header behind IPv4, or at once behind IPv6.
func flowOf(frame []byte) (f Flow, ok bool) {
	if len(frame) < ethernetLen {
		return f, false
	}
	packet := frame[ethernetLen:]
	var from, to netip.Addr
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == unix.ETH_P_IP && len(packet) >= ipv4Len && packet[0]>>4 == 4 && packet[9] == protoTCP:
		from, to = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		header := int(packet[0]&0xf) * 4
		if header < ipv4Len || header > len(packet) || binary.BigEndian.Uint16(packet[6:])&0x1fff != 0 {
			return f, false
		}
		packet = packet[header:]
	case kind == unix.ETH_P_IPV6 && len(packet) >= ipv6Len && packet[0]>>4 == 6 && packet[6] == protoTCP:
		from, to = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
		packet = packet[ipv6Len:]
	default:
		return f, false
	}
	if len(packet) < 20 {
		return f, false
	}
	f.User = netip.AddrPortFrom(from, binary.BigEndian.Uint16(packet[0:]))
	f.VIP = netip.AddrPortFrom(to, binary.BigEndian.Uint16(packet[2:]))
	return f, checkFlow(f) == nil
}

// Knows asks the kernel for exactly this connection. It sees the sockets of the caller's network namespace.
func (*forwarder) Knows(flow Flow) (bool, error) {
	if err := checkFlow(flow); err != nil {
		return false, err
	}
	d, err := openDiag()
	if err != nil {
		return false, err
	}
	defer d.close()
	known, err := d.knows(flow)
	if err != nil {
		return false, fmt.Errorf("look up connection of %s: %w", flow, err)
	}
	return known, nil
}

// States of include/net/tcp_states.h that are no connection's.
const (
	stateTimeWait = 6
	stateListens  = 10
)

func (d *diag) knows(flow Flow) (known bool, err error) {
	var id [sockIDLen]byte // struct inet_diag_sockid
	family := uint8(unix.AF_INET)
	if flow.VIP.Addr().Is6() {
		family = unix.AF_INET6
	}
	binary.BigEndian.PutUint16(id[0:], flow.VIP.Port())
	binary.BigEndian.PutUint16(id[2:], flow.User.Port())
	copy(id[4:20], flow.VIP.Addr().AsSlice())
	copy(id[20:36], flow.User.Addr().AsSlice())
	for i := 40; i < sockIDLen; i++ {
		id[i] = 0xff // INET_DIAG_NOCOOKIE
	}
	if err := d.send(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_ACK, family, ^uint32(0), id); err != nil {
		return false, err
	}
	err = d.receive(func(body []byte) {
		s, _, ok := parseSock(body)
		known = known || ok && body[1] != stateListens && body[1] != stateTimeWait && s.remote == flow.User
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return known, err
}
