package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/manycast/manycast/internal/bpfnet"
	"github.com/manycast/manycast/internal/cgroup2"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// heldMapValue is struct connection of bpf/server.bpf.c.
type heldMapValue struct {
	Cookie      wire.Cookie
	Tag         [2]byte
	_           [6]byte
	Sequence    uint64
	Destination placeMapValue
	Heard       uint64
	_           uint64 // when a user was last told to be elsewhere
}

// server is the Server of the kernel.
type server struct {
	spec    *ebpf.CollectionSpec
	objects serverObjects
	dir     string
	log     *slog.Logger
	hooks   hooks
	heard   *ring[Heard]
}

// OpenServer loads and attaches the server's side in the caller's network namespace, or takes over what a former process has left. Its programs
// come before those of the agent: a segment for this server's destination is one for the VIP from there on.
func OpenServer(c Config) (Server, error) {
	s, err := openServer(c)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return s, nil
}

func openServer(c Config) (_ *server, err error) {
	if err := bpfnet.PinDir(c.Bpffs); err != nil {
		return nil, err
	}
	if c.Cgroup == "" {
		if c.Cgroup, err = cgroup2.Root(); err != nil {
			return nil, err
		}
	}
	netns, err := netnsCookie()
	if err != nil {
		return nil, err
	}
	s := &server{dir: c.Bpffs, hooks: hooks{dir: c.Bpffs}, log: logger(c.Log)}
	if s.spec, err = loadServer(); err != nil {
		return nil, err
	}
	if err := s.spec.Variables["netns"].Set(netns); err != nil {
		return nil, err
	}
	if err := loadPinned(s.spec, c.Bpffs, &s.objects, s.log); err != nil {
		return nil, err
	}
	err = s.hooks.attach(c, programs{s.objects.ServerConnections, s.objects.ServerIngress, s.objects.ServerEgress},
		bpfnet.Options{Name: "manycast-dyntcp", First: true})
	if err == nil {
		s.heard, err = readRing(s.objects.Hearings, heardWaiting, parseHeard)
	}
	if err != nil {
		return nil, errors.Join(err, s.hooks.close(true), s.objects.Close())
	}
	return s, nil
}

// Set writes what is needed for new connections last.
func (s *server) Set(services []ServerService) error {
	if err := checkServer(services); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	to, from := make(map[placeMapValue]placeMapValue), make(map[placeMapValue]placeMapValue)
	ports := make(map[uint32]uint32)
	var errs []error
	for _, v := range services {
		vip := newPlace(v.VIP)
		to[vip] = newPlace(v.Destination)
		errs = append(errs, know(s.objects.Known, knownVIP, vip))
		for _, d := range v.destinations() {
			from[newPlace(d)] = vip
			errs = append(errs, know(s.objects.Known, knownPlace, newPlace(d)))
		}
		ports[uint32(binary.NativeEndian.Uint16(vip.Port[:]))] = 1
	}
	errs = append(errs, s.keepDestinations(from))
	errs = append(errs, bpfnet.SyncMap(s.objects.Destinations, from), bpfnet.SyncMap(s.objects.Services, to), bpfnet.SyncMap(s.objects.Ports, ports))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if err := s.reachListeners(); err != nil && len(services) > 0 {
		s.log.Warn("who listens already makes plain connections until it listens anew: that needs Linux 6.12 and CAP_PERFMON", "err", err)
	}
	return nil
}

// keepDestinations adds to from, while there is room, where services were: connections are there still, and nothing else is led from there to a VIP.
func (s *server) keepDestinations(from map[placeMapValue]placeMapValue) error {
	var place, vip placeMapValue
	all := s.objects.Destinations.Iterate()
	for all.Next(&place, &vip) {
		if _, taken := from[place]; !taken && len(from) < int(s.objects.Destinations.MaxEntries()) {
			from[place] = vip
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("destinations: %w", err)
	}
	return nil
}

// reachListeners tells the kernel of listeners that are there.
func (s *server) reachListeners() error {
	var objects listenersObjects
	if err := loadListenersObjects(&objects, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{"ports": s.objects.Ports}}); err != nil {
		return fmt.Errorf("load iterator: %w", err)
	}
	defer objects.Close()
	iter, err := link.AttachIter(link.IterOptions{Program: objects.ServerListeners})
	if err != nil {
		return fmt.Errorf("iterator: %w", err)
	}
	defer iter.Close()
	walk, err := iter.Open()
	if err != nil {
		return fmt.Errorf("iterator: %w", err)
	}
	defer walk.Close()
	if _, err := io.Copy(io.Discard, walk); err != nil {
		return fmt.Errorf("walk through listeners: %w", err)
	}
	return nil
}

// Held reads what lies with the socket, or for its flow.
func (s *server) Held(socket int) (Held, error) {
	var v heldMapValue
	err := s.objects.Connections.Lookup(int32(socket), &v)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		var flow Flow
		if flow, err = FlowOf(socket); err == nil {
			err = s.objects.Made.Lookup(newFlowMapKey(flow), &v)
		}
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = ErrGone
	}
	if err != nil {
		return Held{}, fmt.Errorf("server: what is known of a connection: %w", err)
	}
	return v.held(), nil
}

func (v heldMapValue) held() Held {
	return Held{
		Tag: binary.BigEndian.Uint16(v.Tag[:]), Cookie: v.Cookie, Sequence: v.Sequence, Destination: v.Destination.addrPort(), Heard: v.Heard != 0,
	}
}

// Find runs server_find.
func (s *server) Find(flow Flow) (Held, error) {
	var v heldMapValue
	known, err := run(s.objects.ServerFind, flow, binary.Size(v))
	if err == nil {
		_, err = binary.Decode(known, binary.NativeEndian, &v)
	}
	if err != nil {
		return Held{}, fmt.Errorf("server: find %s: %w", flow, err)
	}
	return v.held(), nil
}

// run runs one of the programs that find a flow's socket, and returns what it writes behind the flow; ErrGone: there is none that can move.
func run(p *ebpf.Program, flow Flow, room int) ([]byte, error) {
	packet := make([]byte, flowSize+room)
	if _, err := binary.Encode(packet, binary.NativeEndian, newFlowMapKey(flow)); err != nil {
		return nil, err
	}
	o := ebpf.RunOptions{Data: packet, DataOut: make([]byte, len(packet)+64)}
	found, err := p.Run(&o)
	if err == nil && found == 0 {
		err = ErrGone
	}
	if err != nil {
		return nil, err
	}
	return o.DataOut[flowSize:], nil
}

// Adopt writes it.
func (s *server) Adopt(socket int, h Held) error {
	if err := checkPlace("destination", h.Destination); err != nil {
		return fmt.Errorf("server: adopt a connection: %w", err)
	}
	v := heldMapValue{Cookie: h.Cookie, Sequence: h.Sequence, Destination: newPlace(h.Destination)}
	binary.BigEndian.PutUint16(v.Tag[:], h.Tag)
	if h.Heard {
		v.Heard = 1
	}
	flow, err := FlowOf(socket)
	if err == nil {
		err = s.objects.Connections.Put(int32(socket), v)
	}
	if err == nil { // the socket's is not looked at before
		err = bpfnet.Deleted(s.objects.Made.Delete(newFlowMapKey(flow)))
	}
	if err != nil {
		return fmt.Errorf("server: adopt a connection: %w", err)
	}
	return nil
}

// Listen runs server_listen.
func (s *server) Listen(flow Flow) error {
	if _, err := run(s.objects.ServerListen, flow, 0); err != nil {
		return fmt.Errorf("server: listen to %s: %w", flow, err)
	}
	return nil
}

// Follow writes flows.
func (s *server) Follow(flows []Flow) error {
	for _, f := range flows {
		if err := s.objects.Follows.Put(newFlowMapKey(f), uint32(1)); err != nil {
			return fmt.Errorf("server: follow %s: %w", f, err)
		}
	}
	return nil
}

// Followed reads flows.
func (s *server) Followed() (flows []Flow, err error) {
	var key flowMapKey
	var value uint32
	entries := s.objects.Follows.Iterate()
	for entries.Next(&key, &value) {
		flows = append(flows, key.flow())
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("server: flows that are followed: %w", err)
	}
	return flows, nil
}

// Forget deletes flows.
func (s *server) Forget(flows []Flow) error {
	var errs []error
	for _, f := range flows {
		if err := bpfnet.Deleted(s.objects.Follows.Delete(newFlowMapKey(f))); err != nil {
			errs = append(errs, fmt.Errorf("server: forget %s: %w", f, err))
		}
	}
	return errors.Join(errs...)
}

// parseHeard reads a struct heard of bpf/server.bpf.c.
func parseHeard(b []byte) (Heard, bool) {
	if len(b) < flowSize+32 {
		return Heard{}, false
	}
	h := Heard{Flow: parseFlow(b), Cookie: wire.Cookie(b[flowSize : flowSize+8]), Sequence: binary.NativeEndian.Uint64(b[flowSize+16:])}
	h.Tag, h.Elsewhere = binary.BigEndian.Uint16(b[flowSize+8:]), binary.NativeEndian.Uint64(b[flowSize+24:]) != 0
	return h, true
}

// Heard ends with the server.
func (s *server) Heard() <-chan Heard { return s.heard.out }

// Counters adds up what the CPUs counted.
func (s *server) Counters() (ServerCounters, error) {
	var total ServerCounters
	err := bpfnet.AddCounters(s.objects.Counters, func(c ServerCounters) { total = total.plus(c) })
	total.HeardLost += s.heard.lost.Load()
	return total, err
}

func (c ServerCounters) plus(d ServerCounters) ServerCounters {
	return ServerCounters{
		c.Answered + d.Answered, c.NoRoom + d.NoRoom, c.Established + d.Established, c.NoMemory + d.NoMemory, c.Received + d.Received, c.Sent + d.Sent,
		c.Followed + d.Followed, c.Errors + d.Errors, c.Failed + d.Failed, c.Heard + d.Heard, c.HeardLost + d.HeardLost, c.Doubted + d.Doubted, c.Elsewhere + d.Elsewhere,
	}
}

// Close keeps all in place or takes all of it away.
func (s *server) Close(keep bool) error {
	err := errors.Join(s.heard.close(), s.hooks.close(keep), s.objects.Close())
	if keep {
		return err
	}
	return errors.Join(err, bpfnet.RemoveMaps(s.spec, s.dir), bpfnet.RemovePinDir(s.dir))
}
