package wire

// Framer cuts a session's TCP stream into PDUs. The zero Framer is ready, and accepts PDUs up to DefaultMaxPDULength. After what
// Write brought has been taken out by Next, it holds less than one PDU.
type Framer struct {
	limit uint16 // 0: the default
	buf   []byte
	read  int // what Next gave away
	err   error
}

// SetMaxPDULength says what the session has negotiated, as MaxPDULength gives it: it counts for every PDU that Next has not given yet.
func (f *Framer) SetMaxPDULength(n uint16) { f.limit = n }

// Write takes bytes of the stream as they come; it copies them and never fails; after an error of Next it
// drops them. PDUs that Next gave before are no longer valid.
func (f *Framer) Write(b []byte) (int, error) {
	if f.err == nil {
		rest := copy(f.buf, f.buf[f.read:])
		f.buf, f.read = append(f.buf[:rest], b...), 0
	}
	return len(b), nil
}

// Next gives the next PDU, false where it is not there as a whole. The PDU is valid until the next Write. An error is an *Error, fatal,
// and stays: nobody knows where in the stream the next PDU begins.
func (f *Framer) Next() (PDU, bool, error) {
	if f.err != nil {
		return PDU{}, false, f.err
	}
	b := f.buf[f.read:]
	size, err := pduSize(b, maxPDULength(f.limit))
	if err != nil {
		f.err, f.buf, f.read = err, nil, 0
		return PDU{}, false, err
	}
	if size == 0 || size > len(b) {
		return PDU{}, false, nil
	}
	f.read += size
	return cutPDU(b[:size]), true, nil
}

// Pending is how many bytes of the stream are waiting for the rest of their PDU.
func (f *Framer) Pending() int { return len(f.buf) - f.read }
