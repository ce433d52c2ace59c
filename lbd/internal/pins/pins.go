// Package pins is what servers and directors say of pinned users (Fig 16): whose packets routers are to bring to a server that has lost them,
// for the connections that it goes on with. It is a codec, and the seam through which directors answer; a fake is beside it.
package pins

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// Max is how many users a server pins of a service. Packets of more are forwarded between servers.
const Max = 4096

// Times of a server's pins.
const (
	Renew   = 2 * time.Second // they are said again
	Expires = 7 * time.Second // since they were last said they are over
)

// Pins are all users whom a server pins of a service.
type Pins struct {
	Service, Server string
	Epoch           epoch.Epoch  // of the allocation by which they are others'
	Users           []netip.Addr // IPv4, sorted, at most Max
	Over            int          // users beyond Max
	Apart           int          // users who cannot be pinned: of IPv6, or told apart by port
}

// ErrInvalid is wrapped by errors about what is no server's pins.
var ErrInvalid = errors.New("no pins")

// Key is their key in the bucket. Names of services have no dots.
func Key(service, server string) string { return service + "." + server }

// Encode encodes all but the names, which the key has. Users have to be of IPv4.
func Encode(p Pins) ([]byte, error) {
	m := &handoverv1.Pins{Epoch: alloc.EpochToProto(p.Epoch), Over: uint32(p.Over), Apart: uint32(p.Apart)}
	for _, u := range p.Users {
		b := u.As4()
		m.Users = append(m.Users, binary.BigEndian.Uint32(b[:]))
	}
	return proto.Marshal(m)
}

// Decode decodes an entry of the bucket.
func Decode(key string, value []byte) (Pins, error) {
	service, server, ok := strings.Cut(key, ".")
	if !ok || service == "" || server == "" {
		return Pins{}, fmt.Errorf("%w: key %q is not service.server", ErrInvalid, key)
	}
	var m handoverv1.Pins
	if err := proto.Unmarshal(value, &m); err != nil {
		return Pins{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(m.GetUsers()) > Max {
		return Pins{}, fmt.Errorf("%w: %d users, at most %d", ErrInvalid, len(m.GetUsers()), Max)
	}
	p := Pins{Service: service, Server: server, Epoch: alloc.EpochFromProto(m.GetEpoch()), Over: int(m.GetOver()), Apart: int(m.GetApart())}
	for i, u := range m.GetUsers() {
		if i > 0 && u <= m.GetUsers()[i-1] {
			return Pins{}, fmt.Errorf("%w: users are not sorted and distinct", ErrInvalid)
		}
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], u)
		p.Users = append(p.Users, netip.AddrFrom4(b))
	}
	return p, nil
}
