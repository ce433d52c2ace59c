// Package numbered is bytes that say where they belong: each word of eight of them has the number of its stream, who wrote it and its
// place. Whoever reads them sees what was lost, doubled or reordered, and when another server began to write.
package numbered

import "encoding/binary"

// WordBytes is the size of a word.
const WordBytes = 8

// A word is a stream's number (16 bits), its writer (8 bits) and its place among the stream's words (40 bits). What is on the way is their
// product with an odd number: of bytes that are parts of several words another stream's number comes out.
const (
	factor    = 0x9e3779b97f4a7c15
	inverse   = 0xf1de83e19937733d // factor * inverse = 1
	scramble  = 0x6a09e667f3bcc908 // for zeros not to be a word
	placeBits = 40
	placeMask = 1<<placeBits - 1
)

// end is the writer of the word behind the last one.
const end = 0xff

// MaxWriter is the largest number of a writer.
const MaxWriter = end - 1

func word(stream uint16, writer uint8, place uint64) uint64 {
	return (uint64(stream)<<48|uint64(writer)<<placeBits|place&placeMask)*factor ^ scramble
}

// Source writes one stream. Another process goes on with it where it has the same fields.
type Source struct {
	Stream uint16
	Writer uint8  // 0 to MaxWriter
	Next   uint64 // the word that is appended next
	Ended  bool   // there is none any more
}

// Append appends n words.
func (s *Source) Append(p []byte, n int) []byte {
	for range n {
		p = binary.BigEndian.AppendUint64(p, word(s.Stream, s.Writer, s.Next))
		s.Next++
	}
	return p
}

// AppendEnd appends the word that ends the stream: it says how many there were.
func (s *Source) AppendEnd(p []byte) []byte {
	s.Ended = true
	return binary.BigEndian.AppendUint64(p, word(s.Stream, end, s.Next))
}

// Counts are bytes that a sink has seen.
type Counts struct {
	Received  uint64 `json:"received"`  // in words of the stream
	Lost      uint64 `json:"lost"`      // others came behind them, and they did not
	Doubled   uint64 `json:"doubled"`   // had come before
	Reordered uint64 `json:"reordered"` // came behind others that belong behind them
	Garbled   uint64 `json:"garbled"`   // belong to no word of the stream
}

// Whole says whether what came is what was sent.
func (c Counts) Whole() bool {
	return c.Lost == 0 && c.Doubled == 0 && c.Reordered == 0 && c.Garbled == 0
}

// Plus adds up.
func (c Counts) Plus(o Counts) Counts {
	return Counts{c.Received + o.Received, c.Lost + o.Lost, c.Doubled + o.Doubled, c.Reordered + o.Reordered, c.Garbled + o.Garbled}
}

// gap is words that have not come, from First to the one before Behind.
type gap struct{ First, Behind uint64 }

// maxGaps bounds what is remembered of a stream that is beyond repair; what goes beyond stays lost.
const maxGaps = 4096

// Sink reads one stream. Another process goes on with it where it has the same fields.
type Sink struct {
	Stream uint16
	Next   uint64 // the word that is expected
	Writer uint8  // of the last word; meaningful where something was received
	Ended  bool   // the word that ends the stream has come: what follows is no part of it
	Rest   []byte // the beginning of a word
	Gaps   []gap
	Seen   Counts
}

// Take reads what has come. Behind the end of the stream it returns what is no part of it.
func (s *Sink) Take(p []byte) (behind []byte) {
	if len(s.Rest) > 0 {
		p = append(s.Rest, p...)
		s.Rest = nil
	}
	for len(p) >= WordBytes && !s.Ended {
		n, known := s.read(p)
		if !known {
			s.Seen.Garbled += uint64(n)
		}
		p = p[n:]
	}
	if s.Ended {
		return p
	}
	s.Rest = append([]byte(nil), p...)
	return nil
}

// read takes the word at the beginning of p, or one byte that begins none.
func (s *Sink) read(p []byte) (n int, known bool) {
	w := (binary.BigEndian.Uint64(p) ^ scramble) * inverse
	writer, place := uint8(w>>placeBits), w&placeMask
	switch {
	case uint16(w>>48) != s.Stream:
		return 1, false
	case writer == end:
		s.Ended = true
		s.skip(place)
		return WordBytes, true
	}
	s.Seen.Received += WordBytes
	s.Writer = writer
	switch {
	case place >= s.Next:
		s.skip(place)
		s.Next++
	case s.fill(place):
		s.Seen.Lost -= WordBytes
		s.Seen.Reordered += WordBytes
	default:
		s.Seen.Doubled += WordBytes
	}
	return WordBytes, true
}

// skip notes that words before place are missing.
func (s *Sink) skip(place uint64) {
	if place <= s.Next {
		return
	}
	s.Seen.Lost += (place - s.Next) * WordBytes
	if len(s.Gaps) < maxGaps {
		s.Gaps = append(s.Gaps, gap{s.Next, place})
	}
	s.Next = place
}

// fill takes a word that was missing.
func (s *Sink) fill(place uint64) bool {
	for i, g := range s.Gaps {
		if place < g.First || place >= g.Behind {
			continue
		}
		rest := append([]gap(nil), s.Gaps[i+1:]...)
		s.Gaps = s.Gaps[:i]
		if g.First < place {
			s.Gaps = append(s.Gaps, gap{g.First, place})
		}
		if place+1 < g.Behind {
			s.Gaps = append(s.Gaps, gap{place + 1, g.Behind})
		}
		s.Gaps = append(s.Gaps, rest...)
		return true
	}
	return false
}
