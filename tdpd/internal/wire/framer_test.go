package wire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outcome is what a stream brought: messages as they were received, and the errors that they or the framing were refused with.
type outcome struct {
	messages []Message
	refused  []string
	dead     bool
}

// stream feeds a stream in pieces of n bytes, and ends with the first fatal error.
func stream(t testing.TB, b []byte, n int) outcome {
	t.Helper()
	var o outcome
	var f Framer
	for len(b) > 0 && !o.dead {
		n := min(n, len(b))
		piece := bytes.Clone(b[:n])
		_, _ = f.Write(piece)
		clear(piece)
		b = b[n:]
		o.take(&f)
		if f.Pending() >= DefaultMaxPDULength+pduUncounted {
			t.Fatalf("%d bytes are waiting, a PDU has less", f.Pending())
		}
	}
	return o
}

func (o *outcome) take(f *Framer) {
	for {
		pdu, ok, err := f.Next()
		if err != nil {
			o.refused, o.dead = append(o.refused, err.Error()), true
			return
		}
		if !ok {
			return
		}
		for m, err := range pdu.Messages() {
			var e *Error
			if errors.As(err, &e) {
				o.refused = append(o.refused, err.Error())
				if o.dead = e.Fatal(); o.dead {
					return
				}
				continue
			}
			o.messages = append(o.messages, m)
		}
	}
}

// A PDU limit counts from the next PDU on, also for what has been written already.
func TestSetMaxPDULength(t *testing.T) {
	var f Framer
	large, err := AppendPDU(nil, sender, 8192, KeepAlive{Head{ID: 1, Others: []TLV{{Type: 0x3fff, Unknown: true, Value: make([]byte, 5000)}}}})
	if err != nil {
		t.Fatal(err)
	}
	small, err := AppendPDU(nil, sender, 0, KeepAlive{Head{ID: 0}})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write(append(small, large...))
	if _, ok, err := f.Next(); !ok || err != nil {
		t.Fatalf("PDU %v, error %v", ok, err)
	}
	f.SetMaxPDULength(8192)
	if pdu, ok, err := f.Next(); !ok || err != nil || len(pdu.Body) < 5000 {
		t.Errorf("PDU %v, error %v", ok, err)
	}
	if f.Pending() != 0 {
		t.Errorf("%d bytes left", f.Pending())
	}
	f.SetMaxPDULength(256)
	_, _ = f.Write(large)
	if _, ok, err := f.Next(); ok || !fatal(err) {
		t.Errorf("PDU %v, error %v; want it refused", ok, err)
	}
}

// A stream means the same however it is cut, and never panics.
func FuzzStream(f *testing.F) {
	for _, name := range []string{"frr-stream1.hex", "frr-stream2.hex"} {
		var b []byte
		for _, line := range lines(f, name) {
			b = append(b, unhex(f, line)...)
		}
		f.Add(b, 7)
	}
	f.Add([]byte{0, 1, 0, 14, 1, 1, 1, 1, 0, 0, 2, 1, 0, 4, 0, 0, 0, 1, 0, 2}, 1)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		whole, cut := stream(t, b, max(len(b), 1)), stream(t, b, max(n, 1))
		if diff := cmp.Diff(whole, cut, equate, cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("in pieces of %d bytes (-whole +cut):\n%s", n, diff)
		}
	})
}

func TestStreamInPieces(t *testing.T) {
	var b []byte
	for _, line := range lines(t, "frr-stream1.hex") {
		b = append(b, unhex(t, line)...)
	}
	whole := stream(t, b, len(b))
	if len(whole.messages) == 0 {
		t.Fatal("nothing received")
	}
	for n := 1; n < 200; n++ {
		if diff := cmp.Diff(whole, stream(t, b, n), equate, cmp.AllowUnexported(outcome{})); diff != "" {
			t.Fatalf("in pieces of %d bytes (-whole +cut):\n%s", n, diff)
		}
	}
}
