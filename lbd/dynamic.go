package main

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/agent"
	"github.com/manycast/manycast/lbd/internal/config"
	"github.com/manycast/manycast/lbd/internal/dataplane"
	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/servicekey"
	"github.com/manycast/manycast/lbd/internal/dyntcp/serving"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
	"github.com/manycast/manycast/lbd/internal/mover"
)

// newDynamic is the server's part in dynamic TCP. Its programs are there when a service is dynamic.
func newDynamic(cfg config.Agent, link agent.Link, plane dataplane.AgentPlane, keys *servicekey.Ring, keep bool, b *base) (*serving.Loop, error) {
	addresses := []netip.Addr{link.Address}
	if link.Address6.IsValid() {
		addresses = append(addresses, link.Address6)
	}
	send, err := senders(addresses)
	if err != nil {
		return nil, err
	}
	return serving.New(serving.Config{
		Addresses: addresses, Keep: keep, Sign: keys.Sign, FlowOf: kernel.FlowOf, Knows: plane.Knows, Connected: dataplane.ConnectedUsers, Log: b.log,
		Open: func() (kernel.Server, error) {
			return kernel.OpenServer(kernel.Config{Interfaces: []string{cfg.Interface}, Bpffs: filepath.Join(cfg.BPFFS, "dyntcp"), Log: b.log})
		},
		Send: func(user netip.Addr, message []byte) error {
			socket, ok := send[user.Is4()]
			if !ok {
				return fmt.Errorf("no address of the family of user %v", user)
			}
			_, err := socket.WriteToUDPAddrPort(message, netip.AddrPortFrom(user, wire.Port))
			return err
		},
	}), nil
}

// senders are sockets for changes of destination, one of each address; those of IPv4 by true.
func senders(addresses []netip.Addr) (map[bool]*net.UDPConn, error) {
	sockets := make(map[bool]*net.UDPConn, len(addresses))
	for _, a := range addresses {
		socket, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
		if err != nil {
			return nil, fmt.Errorf("socket for changes of destination at %v: %w", a, err)
		}
		sockets[a.Is4()] = socket
	}
	return sockets, nil
}

// servicesOf are the services of what the agent executes.
func servicesOf(all []mover.View) []service.Service {
	out := make([]service.Service, len(all))
	for i, v := range all {
		out[i] = v.Service
	}
	return out
}
