package igmp

import (
	"encoding/binary"
	"fmt"
)

// reportExtension is the E bit, the top of the 16 bits before the number of records (RFC 9279 section 3.2).
const reportExtension = 1 << 15

// ReportBytes is the size of a report without records and extensions.
const ReportBytes = headerBytes

// Report is a membership report of IGMPv3 (RFC 3376 section 4.2).
type Report struct {
	Records    []Record
	Extensions []Extension // of RFC 9279, behind the last record
	// ExtensionErr says why an extension that the E bit announced was ignored (RFC 9279 section 5); not sent.
	ExtensionErr error
}

func parseReport(b []byte) (Message, error) {
	n := int(binary.BigEndian.Uint16(b[6:]))
	rest := b[headerBytes:]
	if n*RecordBytes > len(rest) {
		return nil, fmt.Errorf("igmp: %w: %d records announced, %d bytes left", ErrTruncated, n, len(rest))
	}
	var r Report
	if n > 0 {
		r.Records = make([]Record, n)
	}
	var err error
	for i := range r.Records {
		if r.Records[i], rest, err = parseRecord(rest); err != nil {
			return nil, fmt.Errorf("record %d: %w", i+1, err)
		}
	}
	if binary.BigEndian.Uint16(b[4:])&reportExtension != 0 {
		r.Extensions, r.ExtensionErr = parseExtensions(rest)
	}
	return r, nil
}

// Append implements Message.
func (r Report) Append(b []byte) ([]byte, error) {
	if len(r.Records) > 0xffff {
		return nil, fmt.Errorf("igmp: %w: %d records in a report", ErrMalformed, len(r.Records))
	}
	start := len(b)
	var flags uint16
	if len(r.Extensions) > 0 {
		flags = reportExtension
	}
	b = append(b, TypeV3Report, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Records)))
	var err error
	for _, rec := range r.Records {
		if b, err = rec.append(b); err != nil {
			return nil, err
		}
	}
	if b, err = appendExtensions(b, r.Extensions); err != nil {
		return nil, err
	}
	return seal(b, start)
}
