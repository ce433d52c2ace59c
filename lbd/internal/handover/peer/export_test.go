package peer

import (
	"bytes"
	"crypto/tls"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/manycast/manycast/lbd/internal/handover"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// Session is TLS as an honest peer has it.
func Session(t testing.TB, c Config) *tls.Config {
	t.Helper()
	s, err := c.withDefaults().session()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// HelloFrame is the Hello of a peer.
func HelloFrame(t testing.TB, c Config) []byte { return frameOf(t, c.withDefaults().hello(nil)) }

// PartFrame is a part of a state, right or wrong.
func PartFrame(t testing.TB, id handover.ID, kernel, application uint32, data []byte) []byte {
	return frameOf(t, &handoverv1.Message{About: &handoverv1.Message_Part{Part: &handoverv1.Part{
		Transfer: handover.EncodeID(id), Kernel: kernel, Application: application, Data: data,
	}}})
}

// NewerFrame is a message with a field that this version does not know; alone, it is a kind of message that this version does not know.
func NewerFrame(t testing.TB, m *handoverv1.Message) []byte {
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	return frameOf(t, m)
}

// NewerHelloFrame is the Hello of a peer with such a field, of this version all the same.
func NewerHelloFrame(t testing.TB, c Config) []byte {
	m := c.withDefaults().hello(nil)
	m.GetHello().ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	return NewerFrame(t, m)
}

func frameOf(t testing.TB, m *handoverv1.Message) []byte {
	t.Helper()
	b, err := appendFrame(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzFrames reads hostile bytes after Hello: nothing panics, no state is larger than it may be, and what came whole comes whole again.
func FuzzFrames(f *testing.F) {
	id := handover.ID{Giver: "s1", Boot: 2, Number: 3}
	small := handover.State{ID: id, Kernel: []byte("kernel"), Application: []byte("application")}
	var q queue
	for _, m := range []handover.Message{handover.Ready{ID: id}, small} {
		if err := q.add(m); err != nil {
			f.Fatal(err)
		}
	}
	whole, err := q.next(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:20])
	f.Add(append(PartFrame(f, id, 10, 4, []byte("kernel")), PartFrame(f, id, 10, 4, []byte("and words"))...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		read := frames{r: bytes.NewReader(raw), limit: maxFrame}
		var parts assembler
		for {
			p, err := read.next()
			if err != nil {
				return
			}
			m, err := parts.take(p)
			if err != nil {
				return
			}
			if len(parts.data) > len(raw) || cap(read.buf) > maxFrame {
				t.Fatalf("%d bytes of %d kept, %d read at once", len(parts.data), len(raw), cap(read.buf))
			}
			if s, ok := m.(handover.State); ok && (len(s.Kernel) > MaxKernel || len(s.Application) > MaxApplication) {
				t.Fatalf("state of %d and %d bytes", len(s.Kernel), len(s.Application))
			}
		}
	})
}
