package dataplane

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/manycast/manycast/internal/bpfnet"
)

// portMapKey is struct port_key of bpf/packet.h. Addresses and ports are in network byte order.
type portMapKey struct {
	VIP   [4]byte
	Port  [2]byte
	Proto uint8
	_     uint8
}

const (
	protoTCP = 6
	protoUDP = 17
)

func newPortMapKey(vip netip.Addr, p Port) portMapKey {
	k := portMapKey{VIP: vip.As4(), Port: [2]byte{byte(p.Number >> 8), byte(p.Number)}, Proto: protoTCP}
	if p.Proto == "udp" {
		k.Proto = protoUDP
	}
	return k
}

// loadPinned loads spec with every map pinned in dir; maps that are there already are taken over with what they hold. The map named
// lasting, if it fits still, is not replaced with others of another layout: nobody could write its entries again.
func loadPinned(spec *ebpf.CollectionSpec, dir, lasting string, log *slog.Logger) (*ebpf.Collection, error) {
	coll, replaced, err := bpfnet.NewPinned(spec, dir, lasting)
	if replaced {
		log.Warn("pinned maps have another layout and are replaced; counters start anew", "dir", dir)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("load BPF objects, pinned in %s: %w: needs CAP_BPF and CAP_NET_ADMIN, and the directory has to be this user's", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("load BPF objects, pinned in %s: %w", dir, err)
	}
	return coll, nil
}

// removePins removes the pinned maps and their directory.
func removePins(spec *ebpf.CollectionSpec, dir string) error {
	return errors.Join(bpfnet.RemoveMaps(spec, dir), bpfnet.RemovePinDir(dir))
}

// logger is log, or one that says nothing.
func logger(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
