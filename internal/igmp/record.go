package igmp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// RecordType is the type of a group record (RFC 3376 section 4.2.12). Receivers ignore types that they do not know.
type RecordType uint8

// The record types.
const (
	ModeIsInclude RecordType = 1 + iota
	ModeIsExclude
	ChangeToInclude
	ChangeToExclude
	AllowNewSources
	BlockOldSources
)

// RecordBytes is the size of a record without sources.
const RecordBytes = 8

// String returns the RFC's name, as in MODE_IS_EXCLUDE.
func (t RecordType) String() string {
	switch t {
	case ModeIsInclude:
		return "MODE_IS_INCLUDE"
	case ModeIsExclude:
		return "MODE_IS_EXCLUDE"
	case ChangeToInclude:
		return "CHANGE_TO_INCLUDE_MODE"
	case ChangeToExclude:
		return "CHANGE_TO_EXCLUDE_MODE"
	case AllowNewSources:
		return "ALLOW_NEW_SOURCES"
	case BlockOldSources:
		return "BLOCK_OLD_SOURCES"
	}
	return fmt.Sprintf("RecordType(%d)", uint8(t))
}

// Record is a group record of a report (RFC 3376 section 4.2.4). Auxiliary data is skipped and never sent.
type Record struct {
	Type    RecordType
	Group   netip.Addr
	Sources []netip.Addr
}

// parseRecord decodes the record at the front of b and returns what is behind it.
func parseRecord(b []byte) (Record, []byte, error) {
	if len(b) < RecordBytes {
		return Record{}, nil, fmt.Errorf("igmp: %w: %d bytes left, a record has %d", ErrTruncated, len(b), RecordBytes)
	}
	r := Record{Type: RecordType(b[0]), Group: addr4(b[4:])}
	aux := int(b[1]) * 4
	n := int(binary.BigEndian.Uint16(b[2:]))
	var err error
	if r.Sources, b, err = parseAddrs(b[RecordBytes:], n); err != nil {
		return Record{}, nil, err
	}
	if aux > len(b) {
		return Record{}, nil, fmt.Errorf("igmp: %w: %d bytes of auxiliary data announced, %d left", ErrTruncated, aux, len(b))
	}
	return r, b[aux:], nil
}

func (r Record) append(b []byte) ([]byte, error) {
	if len(r.Sources) > 0xffff {
		return nil, fmt.Errorf("igmp: %w: %d sources in a record", ErrMalformed, len(r.Sources))
	}
	b = append(b, byte(r.Type), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Sources)))
	b, err := appendAddr(b, r.Group, "group")
	if err != nil {
		return nil, err
	}
	return appendAddrs(b, r.Sources)
}
