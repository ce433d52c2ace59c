package igmp

import "math/bits"

// decodeFloat gives the value of a Max Resp Code or a QQIC (RFC 3376 sections 4.1.1 and 4.1.7): itself below 128, else
// (mant | 0x10) << (exp + 3).
func decodeFloat(code byte) uint32 {
	if code < 128 {
		return uint32(code)
	}
	return uint32(code&0xf|0x10) << (code>>4&0x7 + 3)
}

// encodeFloat gives the code of the largest value that is not above v.
func encodeFloat(v uint64) byte {
	if v < 128 {
		return byte(v)
	}
	if v > 0x1f<<10 {
		return 0xff
	}
	exp := bits.Len64(v) - 5 - 3
	return 0x80 | byte(exp)<<4 | byte(v>>(exp+3))&0xf
}
