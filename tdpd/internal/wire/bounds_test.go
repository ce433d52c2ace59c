package wire

import (
	"bytes"
	"runtime"
	"testing"
)

// However a peer fills a PDU of the default size, decoding it takes no more memory than a small multiple of it.
func TestAllocationsAreBounded(t *testing.T) {
	const size = DefaultMaxPDULength - identifierSize
	body := func(kind MessageType, unit []byte) []byte {
		return appendRaw(nil, kind, 42, bytes.Repeat(unit, (size-messageHeaderSize)/len(unit)))
	}
	list := func(kind MessageType, t TLVType, head, unit []byte) []byte {
		n := (size - messageHeaderSize - tlvHeaderSize - len(head)) / len(unit)
		value := append(head, bytes.Repeat(unit, n)...)
		return appendRaw(nil, kind, 42, append([]byte{byte(t >> 8), byte(t), byte(len(value) >> 8), byte(len(value))}, value...))
	}
	for name, pdu := range map[string][]byte{
		"KeepAlives":   bytes.Repeat(appendRaw(nil, TypeKeepAlive, 1, nil), size/messageHeaderSize),
		"unknown TLVs": body(TypeKeepAlive, []byte{0xbf, 0xff, 0, 0}),
		"wildcards":    list(TypeLabelWithdraw, TLVFEC, nil, []byte{fecWildcard}),
		"defaults":     list(TypeLabelMapping, TLVFEC, nil, []byte{fecPrefix, 0, 1, 0}),
		"addresses":    list(TypeAddress, TLVAddressList, []byte{0, 1}, []byte{10, 0, 0, 1}),
		"a path":       list(TypeLabelRequest, TLVPathVector, nil, []byte{1, 1, 1, 1}),
		"requests":     bytes.Repeat(unhex(t, "0401 000c 0000002a 0100 0004 02 0001 00"), size/16),
		"a message":    body(0x3f00|messageU, []byte{1}),
		"errors":       bytes.Repeat(unhex(t, "0201 0008 0000002a 3fff 0000"), size/12),
	} {
		const factor = 80 // a wildcard of 1 byte becomes an element of 16, in a slice that doubles
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range (PDU{Body: pdu}).Messages() {
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > factor*size {
			t.Errorf("%s: %d bytes for a PDU of %d", name, got, len(pdu))
		} else {
			t.Logf("%s: %.1f bytes for each", name, float64(got)/float64(len(pdu)))
		}
	}
}
