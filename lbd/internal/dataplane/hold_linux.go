package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/packetsock"
)

// Marks of bpf/forward.h, in the upper 8 bits.
const (
	markHeld     = 0xb8 << 24
	markLetIn    = 0xb9 << 24
	markReleased = 0xba << 24
)

const (
	vnetLen    = 10       // struct virtio_net_hdr: what checksums and segments of a super-packet are yet to be made
	longest    = 1 << 17  // bytes; a super-packet is at most 64 KiB
	holdBuffer = 16 << 20 // bytes that wait in the kernel to be read
	settles    = 100 * time.Millisecond
	onTheirWay = time.Second // what was sent to our device has been read by then
)

// holdingMapValue is struct holding of bpf/forward.h.
type holdingMapValue struct{ Held, Released uint64 }

// holder keeps frames of flows that are held. The programs send them to our device; a packet socket reads them there, super-packets as
// a whole, and writes them back.
type holder struct {
	own [6]byte // address of the interface where the server joins

	mu     sync.Mutex
	device int
	held   *os.File    // reads what is held, and writes it when it is released
	inject *os.File    // writes what is injected
	up     chan []byte // what is written to held
	done   sync.WaitGroup
	queues map[Flow]*queue
	bytes  int
	lost   atomic.Uint64
	left   []abandoned // the oldest first
}

// abandoned is a flow that is held no more, and whose packets may yet be on their way here.
type abandoned struct {
	flow Flow
	*queue
	at time.Time
}

// queue is what is held of a flow. Once it is open, frames that come yet go up at once, behind those before them.
type queue struct {
	frames [][]byte
	bytes  int
	open   bool
	gone   bool // whose connection is gone: what comes yet is dropped
}

// openOn opens the sockets, unless that is done; the device's index is another one when it was made anew.
func (h *holder) openOn(device int) error {
	h.mu.Lock()
	same := h.device == device
	h.mu.Unlock()
	if same {
		return nil
	}
	if err := h.close(); err != nil {
		return err
	}
	held, err := bound(device, unix.ETH_P_ALL, markReleased)
	if err != nil {
		return fmt.Errorf("socket for held packets: %w", err)
	}
	inject, err := bound(device, 0, markLetIn)
	if err != nil {
		held.Close()
		return fmt.Errorf("socket for injected packets: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	up := make(chan []byte, HoldFrames)
	h.device, h.held, h.inject, h.up = device, held, inject, up
	h.done.Go(func() { h.read(held) })
	h.done.Go(func() { h.write(held, up) })
	return nil
}

// bound opens a packet socket on the device that hears what is held, and nothing with protocol 0. What it sends has the mark.
func bound(device int, protocol uint16, mark int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		packetsock.AttachFilter(fd, []bpf.Instruction{
			bpf.LoadExtension{Num: bpf.ExtMark},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: markHeld, SkipFalse: 1},
			bpf.RetConstant{Val: longest},
			bpf.RetConstant{Val: 0},
		}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, holdBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, holdBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol)), Ifindex: device}))
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "held"), nil
}

// read reads until the socket is closed. What it cannot read for other reasons, such as the device being down, it asks for again later.
func (h *holder) read(from *os.File) {
	b := make([]byte, longest)
	for {
		n, err := from.Read(b)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			time.Sleep(10 * time.Millisecond)
		case n > vnetLen:
			h.take(b[:n])
		}
	}
}

// take keeps a frame, or lets it up where its flow is not held any more.
func (h *holder) take(b []byte) {
	flow, ok := flowOf(b[vnetLen:])
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queues[flow]
	switch {
	case !ok, q != nil && q.gone:
		h.lost.Add(1)
	case h.up == nil:
	case q == nil || q.open:
		h.up <- slices.Clone(b)
	case len(q.frames) >= HoldFrames || h.bytes+len(b) > HoldBytes:
		h.lost.Add(1)
	default:
		q.frames = append(q.frames, slices.Clone(b))
		q.bytes += len(b)
		h.bytes += len(b)
	}
}

// write writes frames on one CPU: each has a backlog of its own, and from several frames would overtake each other.
func (h *holder) write(to *os.File, up <-chan []byte) {
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	var one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &one); err == nil {
		for cpu := 0; one.Count() > 1; cpu++ {
			one.Clear(cpu)
		}
		_ = unix.SchedSetaffinity(0, &one) // else they may come out of order, no more
	}
	for b := range up {
		if _, err := to.Write(b); err != nil {
			h.lost.Add(1)
		}
	}
}

func (h *holder) isOpen() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held != nil
}

// hold begins to keep frames of a flow. One that was opening is held again.
func (h *holder) hold(flow Flow) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q := h.queues[flow]; q != nil && !q.gone {
		q.open = false
		return
	}
	h.queues[flow] = &queue{}
}

// release lets up what is kept of a flow, and from now on what comes.
func (h *holder) release(flow Flow) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queues[flow]
	if q == nil || q.gone || h.up == nil {
		return
	}
	for _, b := range q.frames {
		h.up <- b
	}
	h.bytes -= q.bytes
	h.queues[flow] = &queue{open: true}
}

// abandon drops what is on its way here of flows that are held no more: their connections are elsewhere, and here it would be reset.
func (h *holder) abandon(flows []Flow, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.left) > 0 && now.Sub(h.left[0].at) > onTheirWay {
		if x := h.left[0]; h.queues[x.flow] == x.queue {
			delete(h.queues, x.flow)
		}
		h.left = h.left[1:]
	}
	for _, flow := range flows {
		q := &queue{gone: true}
		h.queues[flow] = q
		h.left = append(h.left, abandoned{flow, q, now})
	}
}

// drop drops what is kept of a flow, and what is on its way here until forget.
func (h *holder) drop(flow Flow) { h.lose(flow, true) }

// forget ends what drop began, or release.
func (h *holder) forget(flow Flow) { h.lose(flow, false) }

func (h *holder) lose(flow Flow, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queues[flow]
	if q == nil {
		return
	}
	h.bytes -= q.bytes
	h.lost.Add(uint64(len(q.frames)))
	if more {
		h.queues[flow] = &queue{gone: true}
	} else {
		delete(h.queues, flow)
	}
}

// dropped is how many frames were lost here, those that the kernel had no room for among them.
func (h *holder) dropped() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held != nil {
		if conn, err := h.held.SyscallConn(); err == nil {
			_ = conn.Control(func(fd uintptr) {
				if s, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
					h.lost.Add(uint64(s.Drops))
				}
			})
		}
	}
	return h.lost.Load()
}

func (h *holder) close() error {
	h.mu.Lock()
	held, inject, up := h.held, h.inject, h.up
	h.device, h.held, h.inject, h.up = 0, nil, nil, nil
	h.mu.Unlock()
	if held == nil {
		return nil
	}
	close(up)
	err := errors.Join(held.Close(), inject.Close())
	h.done.Wait()
	return err
}

// Hold has the program count before it holds.
func (f *forwarder) Hold(flows []Flow) error { return f.keepBack(flows, gateHold) }

// Arm is Hold of what another server sends on alone.
func (f *forwarder) Arm(flows []Flow) error { return f.keepBack(flows, gateArmed) }

func (f *forwarder) keepBack(flows []Flow, kind uint32) error {
	if err := checkFlows(flows); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.holder.isOpen() {
		return errNotForwarding
	}
	for _, flow := range flows {
		f.holder.hold(flow)
		err := f.coll.Maps[agentMapHoldings].Update(newFlowMapKey(flow), holdingMapValue{}, ebpf.UpdateNoExist)
		if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("hold %s: %w", flow, err)
		}
		if err := f.put(flow, gateMapValue{Kind: kind}); err != nil {
			return err
		}
	}
	return nil
}

// Release opens gates in two steps: the program goes on sending packets here until it has seen those before them go up. Where some of
// these were lost, or a bulk stream has as many on the way as its window holds, it never does: the gate opens all the same, and packets
// of the stream may overtake those on the way.
func (f *forwarder) Release(flows []Flow) error {
	if err := checkFlows(flows); err != nil {
		return err
	}
	opening, err := f.startRelease(flows)
	for deadline := time.Now().Add(settles); err == nil && time.Now().Before(deadline) && !f.settled(opening); {
		time.Sleep(time.Millisecond)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var gone []Flow
	for _, flow := range opening {
		if f.gates[flow] == gateOpening { // not held again meanwhile
			gone = append(gone, flow)
		}
	}
	return errors.Join(err, f.remove(gone))
}

// Abandon removes gates but for owners of flows.
func (f *forwarder) Abandon(flows []Flow) error {
	if err := checkFlows(flows); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var gone, held []Flow
	for _, flow := range flows {
		switch f.gates[flow] {
		case gateLead:
			continue
		case gateHold, gateArmed, gateOpening:
			held = append(held, flow)
		}
		gone = append(gone, flow)
	}
	err := f.remove(gone)
	f.holder.abandon(held, time.Now())
	return err
}

// startRelease ends what is passed on, and begins to open what is held.
func (f *forwarder) startRelease(flows []Flow) (opening []Flow, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var passed []Flow
	for _, flow := range flows {
		switch f.gates[flow] {
		case gatePass:
			passed = append(passed, flow)
		case gateHold, gateArmed, gateOpening:
			if err := f.put(flow, gateMapValue{Kind: gateOpening}); err != nil {
				return opening, err
			}
			opening = append(opening, flow)
			f.holder.release(flow)
		}
	}
	return opening, f.remove(passed)
}

// settled reports whether all that was held of flows has gone up.
func (f *forwarder) settled(flows []Flow) bool {
	for _, flow := range flows {
		var h holdingMapValue
		if err := f.coll.Maps[agentMapHoldings].Lookup(newFlowMapKey(flow), &h); err == nil && h.Held != h.Released {
			return false
		}
	}
	return true
}

// Inject writes the frame as one for this host.
func (f *forwarder) Inject(frame []byte) error {
	if _, ok := flowOf(frame); !ok {
		return errors.New("inject: not a packet of TCP")
	}
	f.holder.mu.Lock()
	defer f.holder.mu.Unlock()
	if f.holder.inject == nil {
		return fmt.Errorf("inject: %w", errNotForwarding)
	}
	b := append(make([]byte, vnetLen), frame...)
	copy(b[vnetLen:], f.holder.own[:])
	if _, err := f.holder.inject.Write(b); err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	return nil
}
