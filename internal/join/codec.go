package join

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/portion"
)

const (
	magic   = "MCJN"
	version = 1

	flagSigned = 1 << 0

	fixedBytes   = 76 // magic to the numbers of portions
	portionBytes = 8

	// MinBytes is the size of an unsigned join without portions.
	MinBytes = fixedBytes
	// MaxBytes is the size of the largest join: what an extension can hold.
	MaxBytes = math.MaxUint16
)

// Decode reads the value of a TLV. The result keeps a copy of raw. Errors wrap ErrMalformed or ErrVersion.
func Decode(raw []byte) (Signed, error) {
	if len(raw) < len(magic)+1 || string(raw[:len(magic)]) != magic {
		return Signed{}, fmt.Errorf("%w: no magic", ErrMalformed)
	}
	if v := raw[len(magic)]; v != version {
		return Signed{}, fmt.Errorf("%w: %d, this is %d", ErrVersion, v, version)
	}
	if len(raw) < fixedBytes || len(raw) > MaxBytes {
		return Signed{}, fmt.Errorf("%w: %d bytes, want %d to %d", ErrMalformed, len(raw), fixedBytes, MaxBytes)
	}
	raw = append([]byte(nil), raw...)
	s := Signed{Raw: raw}
	body := raw
	switch raw[5] {
	case 0:
	case flagSigned:
		if len(raw) < fixedBytes+ed25519.SignatureSize {
			return Signed{}, fmt.Errorf("%w: %d bytes have no room for the signature", ErrMalformed, len(raw))
		}
		end := len(raw) - ed25519.SignatureSize
		body, s.Signature = raw[:end:end], raw[end:]
	default:
		return Signed{}, fmt.Errorf("%w: flags %#x", ErrMalformed, raw[5])
	}
	var err error
	if s.Join, err = decodeBody(body); err != nil {
		return Signed{}, err
	}
	return s, nil
}

func decodeBody(b []byte) (Join, error) {
	j, err := decodeFixed(b)
	if err != nil {
		return Join{}, err
	}
	rest := b[fixedBytes:]
	lists := [4]*[]portion.Portion{&j.Owner.Permit, &j.Owner.Deny, &j.Standby.Permit, &j.Standby.Deny}
	for i, list := range lists {
		n := int(binary.BigEndian.Uint16(b[68+2*i:]))
		if *list, rest, err = decodePortions(rest, n); err != nil {
			return Join{}, err
		}
	}
	if len(rest) != 0 {
		return Join{}, fmt.Errorf("%w: %d bytes behind the last portion", ErrMalformed, len(rest))
	}
	return j, j.check()
}

func decodeFixed(b []byte) (Join, error) {
	var j Join
	switch igmp.RecordType(b[6]) {
	case igmp.ModeIsExclude:
	case igmp.ChangeToExclude:
		j.Change = true
	case igmp.ChangeToInclude:
		j.Leave = true
	default:
		return Join{}, fmt.Errorf("%w: record type %d", ErrMalformed, b[6])
	}
	if b[7] > 32 {
		return Join{}, fmt.Errorf("%w: link of /%d", ErrMalformed, b[7])
	}
	link := netip.PrefixFrom(addr4(b[16:]), int(b[7]))
	if link != link.Masked() {
		return Join{}, fmt.Errorf("%w: link %v has bits outside its mask", ErrMalformed, link)
	}
	stamp := binary.BigEndian.Uint64(b[20:])
	if stamp > math.MaxInt64 {
		return Join{}, fmt.Errorf("%w: time %#x", ErrMalformed, stamp)
	}
	if b[62] != 0 || b[63] != 0 {
		return Join{}, fmt.Errorf("%w: reserved bytes %x", ErrMalformed, b[62:64])
	}
	j.Group, j.Requester, j.Link = addr4(b[8:]), addr4(b[12:]), link
	j.Time = time.Unix(0, int64(stamp)).UTC()
	copy(j.Random[:], b[28:44])
	j.Epoch = epoch.Epoch{Term: binary.BigEndian.Uint64(b[44:]), Number: binary.BigEndian.Uint64(b[52:])}
	j.Part, j.Parts = b[60], b[61]
	j.KeyID = binary.BigEndian.Uint32(b[64:])
	return j, nil
}

func decodePortions(b []byte, n int) ([]portion.Portion, []byte, error) {
	if n*portionBytes > len(b) {
		return nil, nil, fmt.Errorf("%w: %d portions announced, %d bytes left", ErrMalformed, n, len(b))
	}
	if n == 0 {
		return nil, b, nil
	}
	list := make([]portion.Portion, n)
	for i := range list {
		addr, mask := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		if addr&^mask != 0 {
			return nil, nil, fmt.Errorf("%w: portion %v has bits outside mask %v", ErrMalformed, addr4(b), addr4(b[4:]))
		}
		list[i] = portion.Portion{Addr: addr4(b), Mask: addr4(b[4:])}
		b = b[portionBytes:]
	}
	return list, b, nil
}

// check holds for every join that is sent or taken.
func (j Join) check() error {
	switch {
	case !j.Group.Is4() || !j.Group.IsMulticast():
		return fmt.Errorf("%w: group %v is no IPv4 multicast address", ErrMalformed, j.Group)
	case !j.Requester.Is4() || j.Requester.IsMulticast() || j.Requester.IsUnspecified():
		return fmt.Errorf("%w: requester %v is no IPv4 unicast address", ErrMalformed, j.Requester)
	case !j.Link.IsValid() || !j.Link.Addr().Is4():
		return fmt.Errorf("%w: link %v is no IPv4 prefix", ErrMalformed, j.Link)
	case j.Part < 1 || j.Part > j.Parts:
		return fmt.Errorf("%w: part %d of %d", ErrMalformed, j.Part, j.Parts)
	case j.Leave && (j.Change || j.Parts != 1 || j.portions() != 0):
		return fmt.Errorf("%w: a leave has one part and no portions", ErrMalformed)
	}
	return nil
}

func (j Join) portions() int {
	return len(j.Owner.Permit) + len(j.Owner.Deny) + len(j.Standby.Permit) + len(j.Standby.Deny)
}

// encode appends all but the signature to b.
func (j Join) encode(b []byte, flags byte) ([]byte, error) {
	if err := j.check(); err != nil {
		return nil, err
	}
	stamp := j.Time.UnixNano()
	if stamp < 0 {
		return nil, fmt.Errorf("%w: time %v is before 1970", ErrMalformed, j.Time)
	}
	link := j.Link.Masked()
	b = append(b, magic...)
	b = append(b, version, flags, byte(j.Record().Type), byte(link.Bits()))
	b = append4(b, j.Group)
	b = append4(b, j.Requester)
	b = append4(b, link.Addr())
	b = binary.BigEndian.AppendUint64(b, uint64(stamp))
	b = append(b, j.Random[:]...)
	b = binary.BigEndian.AppendUint64(b, j.Epoch.Term)
	b = binary.BigEndian.AppendUint64(b, j.Epoch.Number)
	b = append(b, j.Part, j.Parts, 0, 0)
	b = binary.BigEndian.AppendUint32(b, j.KeyID)
	lists := [4][]portion.Portion{j.Owner.Permit, j.Owner.Deny, j.Standby.Permit, j.Standby.Deny}
	for _, list := range lists {
		if len(list) > math.MaxUint16 {
			return nil, fmt.Errorf("%w: %d portions in a list", ErrTooLarge, len(list))
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	}
	var err error
	for _, list := range lists {
		if b, err = appendPortions(b, list); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func appendPortions(b []byte, list []portion.Portion) ([]byte, error) {
	for _, p := range list {
		if !p.Addr.Is4() || !p.Mask.Is4() {
			return nil, fmt.Errorf("%w: portion %v/%v is not IPv4", ErrMalformed, p.Addr, p.Mask)
		}
		b = append4(append4(b, p.Addr), p.Mask)
		pair := binary.BigEndian.Uint64(b[len(b)-portionBytes:])
		if uint32(pair>>32)&^uint32(pair) != 0 {
			return nil, fmt.Errorf("%w: portion %v has bits outside mask %v", ErrMalformed, p.Addr, p.Mask)
		}
	}
	return b, nil
}

func addr4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b[:4])) }

func append4(b []byte, a netip.Addr) []byte {
	v := a.As4()
	return append(b, v[:]...)
}
