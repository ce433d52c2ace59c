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

// syncMap makes m hold exactly want. Entries that are right already are not touched; new ones are there before old ones go.
func syncMap[K, V comparable](m *ebpf.Map, want map[K]V) error {
	var (
		key   K
		value V
		old   []K
	)
	have := make(map[K]V)
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		have[key] = value
		if _, ok := want[key]; !ok {
			old = append(old, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read BPF map %s: %w", m, err)
	}
	for k, v := range want {
		if was, ok := have[k]; ok && was == v {
			continue
		}
		if err := m.Put(k, v); err != nil {
			return fmt.Errorf("write BPF map %s: %w", m, err)
		}
	}
	for _, k := range old {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete from BPF map %s: %w", m, err)
		}
	}
	return nil
}

// addCounters reads the only entry of a per-CPU map and gives each CPU's value to add.
func addCounters[C any](m *ebpf.Map, add func(C)) error {
	var cpus []C
	if err := m.Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read BPF map %s: %w", m, err)
	}
	for _, c := range cpus {
		add(c)
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
