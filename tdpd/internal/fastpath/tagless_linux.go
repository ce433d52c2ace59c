package fastpath

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/manycast/manycast/internal/bpfnet"
)

// taglessSize is that of struct fast_tagless.
const taglessSize = 48

// taglessAtOnce bounds what one Read takes.
const taglessAtOnce = 1024

// ring is the Listener of programs.
type ring struct{ *bpfnet.Ring }

// Listen takes what the programs tell of, one at a time, and what they told when nobody did.
func (f *Fastpath) Listen() (Listener, error) {
	r, err := bpfnet.OpenRing(f.objects.FastTagless)
	if err != nil {
		return nil, fmt.Errorf("tdpd's fast path: ring buffer: %w", err)
	}
	return ring{r}, nil
}

// Read implements Listener.
func (l ring) Read() ([]Tagless, error) {
	var out []Tagless
	var r ringbuf.Record
	for len(out) == 0 || len(out) < taglessAtOnce && l.AvailableBytes() > 0 {
		if err := l.ReadInto(&r); err != nil {
			return out, err
		}
		t, err := decodeTagless(r.RawSample)
		if err != nil {
			return out, err
		}
		out = append(out, t)
	}
	return out, nil
}

func decodeTagless(b []byte) (Tagless, error) {
	if len(b) < taglessSize {
		return Tagless{}, fmt.Errorf("the fast path tells of a packet in %d bytes, want %d", len(b), taglessSize)
	}
	return Tagless{
		VIP: netip.AddrFrom16([16]byte(b[:16])).Unmap(), User: netip.AddrFrom16([16]byte(b[16:32])).Unmap(),
		Interface: int(binary.LittleEndian.Uint32(b[32:])), From: net.HardwareAddr(append([]byte{}, b[36:42]...)),
	}, nil
}
