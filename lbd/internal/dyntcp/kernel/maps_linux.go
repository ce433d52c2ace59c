package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/manycast/manycast/internal/bpfnet"
)

// placeMapValue is struct place of bpf/segment.h.
type placeMapValue struct {
	Address [16]byte
	Port    [2]byte
	_       [6]byte
}

func newPlace(at netip.AddrPort) placeMapValue {
	p := placeMapValue{Address: at.Addr().As16()}
	binary.BigEndian.PutUint16(p.Port[:], at.Port())
	return p
}

// addrPort is zero where the place is none.
func (p placeMapValue) addrPort() netip.AddrPort {
	if p == (placeMapValue{}) {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(p.Address).Unmap(), binary.BigEndian.Uint16(p.Port[:]))
}

// What places are known as: enum known_as of bpf/known.h.
const (
	knownVIP = iota
	knownPlace
	knownOrigin
)

const knownBits = 12

// know has programs look at segments of a place: bpf/known.h.
func know(known *ebpf.Map, as uint32, p placeMapValue) error {
	native := binary.NativeEndian
	mixed := native.Uint64(p.Address[:]) ^ native.Uint64(p.Address[8:]) ^ uint64(native.Uint16(p.Port[:]))
	return known.Put(as<<knownBits|uint32(mixed*0x9e3779b97f4a7c15>>(64-knownBits)), uint64(1))
}

// flowMapKey is struct flow of bpf/segment.h.
type flowMapKey struct {
	User, VIP         [16]byte
	UserPort, VIPPort [2]byte
	_                 [4]byte
}

func newFlowMapKey(f Flow) flowMapKey {
	user, vip := newPlace(f.User), newPlace(f.VIP)
	return flowMapKey{User: user.Address, VIP: vip.Address, UserPort: user.Port, VIPPort: vip.Port}
}

func (k flowMapKey) flow() Flow {
	user, vip := placeMapValue{Address: k.User, Port: k.UserPort}, placeMapValue{Address: k.VIP, Port: k.VIPPort}
	return Flow{User: user.addrPort(), VIP: vip.addrPort()}
}

// loadPinned loads spec into to, with its maps pinned in dir.
func loadPinned(spec *ebpf.CollectionSpec, dir string, to any, log *slog.Logger) error {
	replaced, err := bpfnet.LoadPinned(spec, dir, to)
	if replaced {
		log.Warn("pinned maps have another layout and are replaced: connections that have moved end, counters start anew", "dir", dir)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("load BPF objects, pinned in %s: %w: needs CAP_BPF and CAP_NET_ADMIN, and the directory has to be this user's", dir, err)
	}
	if err != nil {
		return fmt.Errorf("load BPF objects, pinned in %s: %w", dir, err)
	}
	return nil
}

// logger is log, or one that says nothing.
func logger(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}

const flowSize = 40 // bytes of struct flow

// parseFlow reads a struct flow, of flowSize bytes at least.
func parseFlow(b []byte) Flow {
	return flowMapKey{User: [16]byte(b[0:16]), VIP: [16]byte(b[16:32]), UserPort: [2]byte(b[32:34]), VIPPort: [2]byte(b[34:36])}.flow()
}
