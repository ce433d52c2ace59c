// Package binding is how user bindings travel: a protobuf on the bus, and the same in parts, in vendor-private LDP messages, toward
// neighbors that offered the capability. It is a codec: no sockets, no clock.
package binding

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/steering"
)

// MaxSize is the longest encoded binding in bytes: a million users and all cells there can be.
const MaxSize = 16 << 20

// ErrInvalid is wrapped by all errors about what cannot be encoded or was not encoded so.
var ErrInvalid = errors.New("no user binding")

// Encode encodes a binding. That it says something that may be said is its maker's matter.
func Encode(b steering.Binding) ([]byte, error) {
	p, err := ToProto(b)
	if err != nil {
		return nil, err
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err == nil && len(raw) > MaxSize {
		err = fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, len(raw), MaxSize)
	}
	return raw, err
}

// ToProto converts a binding, as Encode does.
func ToProto(b steering.Binding) (*tdpdv1.UserBinding, error) {
	p := &tdpdv1.UserBinding{
		Service: b.Service, Sequence: b.Sequence, Allocation: alloc.ToProto(b.Service, b.Allocation),
		LifetimeMs: milliseconds(b.Lifetime), HoldMs: milliseconds(b.Hold), Refuse: tdpdv1.Refusal(b.Refuse), Reactive: b.Reactive, UsersOnly: b.UsersOnly,
	}
	if b.Nobody {
		p.Nobody = alloc.EpochToProto(b.Allocation.Epoch)
	}
	for _, v := range b.VIPs {
		p.Vips = append(p.Vips, v.AsSlice())
	}
	for _, s := range b.Split {
		p.Split = append(p.Split, append(s.Addr().AsSlice(), byte(s.Bits())))
	}
	var err error
	if p.Voucher, err = number(b.Voucher); err != nil {
		return nil, err
	}
	for _, r := range b.Path {
		n, err := number(r)
		if err != nil {
			return nil, err
		}
		p.Path = append(p.Path, n)
	}
	at := map[string]uint32{}
	for _, name := range b.Allocation.Servers {
		at[name] = uint32(len(at))
	}
	for _, o := range b.Others {
		at[o.Name] = uint32(len(at))
		p.Others = append(p.Others, &tdpdv1.Other{Name: o.Name, Address: o.Address.AsSlice()})
	}
	for _, u := range b.Users {
		n, err := number(u.Address)
		server, ok := at[u.Server]
		if err != nil || !ok {
			return nil, fmt.Errorf("%w: user %v of server %q", ErrInvalid, u.Address, u.Server)
		}
		p.UserAddresses, p.UserServers = append(p.UserAddresses, n), append(p.UserServers, server)
	}
	return p, nil
}

// Decode decodes what Encode wrote. What it says is checked by who takes it; the allocation is one partition, though.
func Decode(raw []byte) (steering.Binding, error) {
	if len(raw) > MaxSize {
		return steering.Binding{}, fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, len(raw), MaxSize)
	}
	var p tdpdv1.UserBinding
	if err := proto.Unmarshal(raw, &p); err != nil {
		return steering.Binding{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return FromProto(&p)
}

// FromProto converts a binding, as Decode does.
func FromProto(p *tdpdv1.UserBinding) (steering.Binding, error) {
	a, err := alloc.FromProto(p.GetAllocation())
	if err != nil {
		return steering.Binding{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	b := steering.Binding{
		Service: p.GetService(), Voucher: address(p.GetVoucher()), Sequence: p.GetSequence(), Allocation: a,
		Lifetime: time.Duration(p.GetLifetimeMs()) * time.Millisecond, Hold: time.Duration(p.GetHoldMs()) * time.Millisecond, Reactive: p.GetReactive(), UsersOnly: p.GetUsersOnly(),
	}
	if _, known := tdpdv1.Refusal_name[int32(p.GetRefuse())]; !known {
		return steering.Binding{}, fmt.Errorf("%w: refusal %d is not known", ErrInvalid, p.GetRefuse())
	}
	b.Refuse = steering.Refusal(p.GetRefuse())
	if p.GetNobody() != nil {
		if !a.Zero() {
			return steering.Binding{}, fmt.Errorf("%w: nobody serves, but servers are allocated", ErrInvalid)
		}
		b.Nobody, b.Allocation.Epoch = true, alloc.EpochFromProto(p.GetNobody())
	}
	for _, v := range p.GetVips() {
		vip, ok := netip.AddrFromSlice(v)
		if !ok {
			return steering.Binding{}, fmt.Errorf("%w: VIP of %d bytes", ErrInvalid, len(v))
		}
		b.VIPs = append(b.VIPs, vip)
	}
	for _, s := range p.GetSplit() {
		prefix, err := prefixOf(s)
		if err != nil {
			return steering.Binding{}, err
		}
		b.Split = append(b.Split, prefix)
	}
	for _, r := range p.GetPath() {
		b.Path = append(b.Path, address(r))
	}
	servers := slices.Clone(a.Servers)
	for _, o := range p.GetOthers() {
		address, ok := netip.AddrFromSlice(o.GetAddress())
		if !ok {
			return steering.Binding{}, fmt.Errorf("%w: server %q with an address of %d bytes", ErrInvalid, o.GetName(), len(o.GetAddress()))
		}
		b.Others, servers = append(b.Others, steering.Server{Name: o.GetName(), Address: address}), append(servers, o.GetName())
	}
	if len(p.GetUserAddresses()) != len(p.GetUserServers()) {
		return steering.Binding{}, fmt.Errorf("%w: %d users with %d servers", ErrInvalid, len(p.GetUserAddresses()), len(p.GetUserServers()))
	}
	for i, u := range p.GetUserAddresses() {
		at := p.GetUserServers()[i]
		if uint64(at) >= uint64(len(servers)) {
			return steering.Binding{}, fmt.Errorf("%w: user %v of server %d of %d", ErrInvalid, address(u), at, len(servers))
		}
		b.Users = append(b.Users, steering.User{Address: address(u), Server: servers[at]})
	}
	return b, nil
}

// prefixOf is an address and a byte of length.
func prefixOf(b []byte) (netip.Prefix, error) {
	if len(b) != 5 && len(b) != 17 {
		return netip.Prefix{}, fmt.Errorf("%w: prefix of %d bytes", ErrInvalid, len(b))
	}
	a, _ := netip.AddrFromSlice(b[:len(b)-1]) // of that length
	p := netip.PrefixFrom(a, int(b[len(b)-1]))
	if !p.IsValid() {
		return netip.Prefix{}, fmt.Errorf("%w: prefix %v/%d", ErrInvalid, a, b[len(b)-1])
	}
	return p, nil
}

func number(a netip.Addr) (uint32, error) {
	if !a.Is4() {
		return 0, fmt.Errorf("%w: %v is not IPv4", ErrInvalid, a)
	}
	b := a.As4()
	return binary.BigEndian.Uint32(b[:]), nil
}

func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func milliseconds(d time.Duration) uint32 {
	return uint32(min(max(d/time.Millisecond, 0), math.MaxUint32))
}
