package numbered

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const stream = 7

func sent(words int) []byte {
	s := Source{Stream: stream, Writer: 1}
	return s.AppendEnd(s.Append(nil, words))
}

// take hands over what has come in pieces of any size.
func take(p []byte, seed uint64) *Sink {
	r := rand.New(rand.NewPCG(seed, 0))
	s := &Sink{Stream: stream}
	for len(p) > 0 {
		n := 1 + r.IntN(min(len(p), 40))
		s.Take(p[:n])
		p = p[n:]
	}
	return s
}

func TestCounts(t *testing.T) {
	all := sent(100)
	at := func(first, behind int) []byte { return all[first*WordBytes : behind*WordBytes] }
	tests := []struct {
		name string
		came []byte
		want Counts
	}{
		{"all", all, Counts{Received: 800}},
		{"nothing", at(100, 101), Counts{Lost: 800}},
		{"without some", slices.Concat(at(0, 10), at(12, 101)), Counts{Received: 784, Lost: 16}},
		{"without the last", slices.Concat(at(0, 98), at(100, 101)), Counts{Received: 784, Lost: 16}},
		{"some twice", slices.Concat(at(0, 20), at(10, 101)), Counts{Received: 880, Doubled: 80}},
		{"some later", slices.Concat(at(0, 10), at(20, 30), at(10, 20), at(30, 101)), Counts{Received: 800, Reordered: 80}},
		{"some later, others not at all", slices.Concat(at(0, 10), at(20, 30), at(12, 18), at(30, 101)), Counts{Received: 768, Reordered: 48, Lost: 32}},
		{"others' bytes between", slices.Concat(at(0, 10), []byte("hello"), at(10, 101)), Counts{Received: 800, Garbled: 5}},
		{"three bytes missing", slices.Concat(all[:83], all[86:]), Counts{Received: 792, Lost: 8, Garbled: 5}},
	}
	for _, tt := range tests {
		for seed := range uint64(20) {
			s := take(tt.came, seed)
			if diff := cmp.Diff(tt.want, s.Seen); diff != "" || !s.Ended || s.Seen.Whole() != (tt.name == "all") {
				t.Errorf("%s, seed %d: ended %v, %s", tt.name, seed, s.Ended, diff)
			}
		}
	}
}

func TestBehindTheEnd(t *testing.T) {
	s := Sink{Stream: stream}
	if got := string(s.Take(append(sent(3), "more"...))); got != "more" {
		t.Errorf("%q", got)
	}
	if got := string(s.Take([]byte(" and more"))); got != " and more" {
		t.Errorf("%q", got)
	}
}

// Another process goes on with both ends of a stream, in the midst of a word.
func TestGoOnElsewhere(t *testing.T) {
	source, sink := Source{Stream: stream, Writer: 1}, Sink{Stream: stream}
	for writer := range uint8(5) {
		text, err := json.Marshal(struct {
			Source Source
			Sink   Sink
		}{source, sink})
		if err != nil {
			t.Fatal(err)
		}
		var there struct {
			Source Source
			Sink   Sink
		}
		if err := json.Unmarshal(text, &there); err != nil {
			t.Fatal(err)
		}
		source, sink = there.Source, there.Sink
		source.Writer = writer
		p := source.Append(nil, 10)
		sink.Take(p[:13])
		sink.Take(p[13:])
		if sink.Writer != writer {
			t.Errorf("writer %d, want %d", sink.Writer, writer)
		}
	}
	sink.Take(source.AppendEnd(nil))
	if !sink.Ended || !sink.Seen.Whole() || sink.Seen.Received != 400 {
		t.Errorf("%+v", sink)
	}
}

func FuzzTake(f *testing.F) {
	f.Add(sent(5), uint64(1))
	f.Add(sent(300)[3:], uint64(2))
	f.Fuzz(func(t *testing.T, p []byte, seed uint64) {
		s := take(p, seed)
		if got := s.Seen.Received + s.Seen.Garbled + uint64(len(s.Rest)); !s.Ended && got != uint64(len(p)) {
			t.Errorf("%d bytes of %d", got, len(p))
		}
		if len(s.Gaps) > maxGaps || len(s.Rest) >= WordBytes {
			t.Errorf("%d gaps, %d bytes left", len(s.Gaps), len(s.Rest))
		}
	})
}
