package wire

// appendPathVector appends a Path Vector TLV, nothing where there are no LSRs.
func appendPathVector(b []byte, path []LSRID) ([]byte, error) {
	if len(path) == 0 {
		return b, nil
	}
	b, at := openTLV(b, TLVPathVector, 0)
	for _, id := range path {
		b = append(b, id[:]...)
	}
	return closeTLV(b, at)
}

// parsePathVector wants one or more LSRs (RFC 5036 section 3.4.5).
func parsePathVector(t TLV) ([]LSRID, error) {
	const size = len(LSRID{})
	if len(t.Value) == 0 || len(t.Value)%size != 0 {
		return nil, t.malformed("%d bytes of LSR IDs", len(t.Value))
	}
	path := make([]LSRID, 0, len(t.Value)/size)
	for b := t.Value; len(b) > 0; b = b[size:] {
		path = append(path, LSRID(b[:size]))
	}
	return path, nil
}
