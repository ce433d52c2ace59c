package exchange

import "bytes"

// stream is one direction: messages, each a head and perhaps a body, one after another.
type stream struct {
	step  step
	lines []byte // of the head, of one chunk's size or of the trailer, as far as they have come
	line  int    // where in lines the last one begins
	left  uint64 // bytes of the body or the chunk that are to come
	final bool   // of responses: the last head was none of an interim one
}

// step is what comes next.
type step int

const (
	inHead step = iota
	inBody
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
)

// body says how a message goes on after its head: so many bytes, or chunks.
type body struct {
	length  uint64
	chunked bool
}

// keptLines is how much memory for heads stays with an idle connection, in bytes.
const keptLines = 2 << 10

func (s *stream) between() bool { return s.step == inHead && len(s.lines) == 0 }

// body is called when a head has passed.
func (s *stream) body(b body) {
	switch {
	case b.chunked:
		s.step = inChunkSize
	case b.length > 0:
		s.step, s.left = inBody, b.length
	}
}

// next follows p as far as the end of a head, which it returns, or of anything else. The head is valid until the next call.
func (s *stream) next(p []byte) (rest, head []byte, why Reason) {
	switch s.step {
	case inBody:
		return s.skip(p, inHead), nil, ""
	case inChunk:
		return s.skip(p, inChunkEnd), nil, ""
	}
	rest, whole, why := s.read(p)
	if why != "" || !whole {
		return rest, nil, why
	}
	lines := s.lines
	s.forget()
	switch s.step {
	case inHead:
		return rest, lines, ""
	case inChunkSize:
		s.left, why = chunkSize(lines)
		s.step = inChunk
		if s.left == 0 {
			s.step = inTrailer
		}
	case inChunkEnd:
		if len(lines) != len("\r\n") {
			why = Unknown
		}
		s.step = inChunkSize
	case inTrailer:
		var f fields
		if f, why = parseFields(lines); f.hasLength || f.chunked {
			why = Unknown
		}
		s.step = inHead
	}
	return rest, nil, why
}

// skip passes what is left of a body or a chunk.
func (s *stream) skip(p []byte, then step) []byte {
	n := min(s.left, uint64(len(p)))
	if s.left -= n; s.left == 0 {
		s.step = then
	}
	return p[n:]
}

// read collects one line, or in heads and trailers all up to an empty one.
func (s *stream) read(p []byte) (rest []byte, whole bool, why Reason) {
	end := bytes.IndexByte(p, '\n')
	part := p[:end+1]
	if end < 0 {
		part = p
	}
	if part = part[:min(len(part), MaxHead+1-len(s.lines))]; len(s.lines)+len(part) > MaxHead {
		return nil, false, Unknown
	}
	if s.step == inHead && len(s.lines) == 0 && !isToken(part[0]) {
		return nil, false, Unknown // so that what is no HTTP/1 is known by its first byte
	}
	s.lines = append(s.lines, part...)
	rest = p[len(part):]
	if end < 0 {
		return rest, false, ""
	}
	line := s.lines[s.line:]
	s.line = len(s.lines)
	if !bytes.HasSuffix(line, []byte("\r\n")) {
		return nil, false, Unknown // a line feed alone
	}
	return rest, len(line) == len("\r\n") || s.step == inChunkSize || s.step == inChunkEnd, ""
}

// forget empties lines, whose memory is used again where it is not too much.
func (s *stream) forget() {
	s.line = 0
	if s.lines = s.lines[:0]; cap(s.lines) > keptLines {
		s.lines = nil
	}
}

// chunkSize reads a line that has a chunk's size. Extensions, which nobody sends and many misread, are refused.
func chunkSize(line []byte) (uint64, Reason) {
	digits := bytes.TrimSuffix(line, []byte("\r\n"))
	if len(digits) == 0 || len(digits) > 15 {
		return 0, Unknown
	}
	var n uint64
	for _, c := range digits {
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | uint64(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			n = n<<4 | uint64(c|0x20-'a'+10)
		default:
			return 0, Unknown
		}
	}
	return n, ""
}
