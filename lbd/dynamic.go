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
	socket, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(link.Address, 0)))
	if err != nil {
		return nil, fmt.Errorf("socket for changes of destination: %w", err)
	}
	return serving.New(serving.Config{
		Address: link.Address, Keep: keep, Sign: keys.Sign, FlowOf: serving.FlowOf, Knows: plane.Knows, Connected: dataplane.ConnectedUsers, Log: b.log,
		Open: func() (kernel.Server, error) {
			return kernel.OpenServer(kernel.Config{Interfaces: []string{cfg.Interface}, Bpffs: filepath.Join(cfg.BPFFS, "dyntcp"), Log: b.log})
		},
		Send: func(user netip.Addr, message []byte) error {
			_, err := socket.WriteToUDPAddrPort(message, netip.AddrPortFrom(user, wire.Port))
			return err
		},
	}), nil
}

// servicesOf are the services of what the agent executes.
func servicesOf(all []mover.View) []service.Service {
	out := make([]service.Service, len(all))
	for i, v := range all {
		out[i] = v.Service
	}
	return out
}
