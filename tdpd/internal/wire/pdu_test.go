package wire

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
)

var sender = Identifier{LSR: LSRID{1, 1, 1, 1}}

func TestIdentifier(t *testing.T) {
	if got := (Identifier{LSR: LSRID{10, 0, 0, 1}, Space: 3}).String(); got != "10.0.0.1:3" {
		t.Error(got)
	}
}

func TestMaxPDULength(t *testing.T) {
	for _, c := range []struct{ ours, theirs, want uint16 }{
		{0, 0, 4096}, {255, 4096, 4096}, {256, 255, 256}, {256, 65535, 256}, {65535, 0, 4096}, {1500, 9000, 1500}, {65535, 65535, 65535},
	} {
		if got := MaxPDULength(c.ours, c.theirs); got != c.want {
			t.Errorf("%d and %d: %d, want %d", c.ours, c.theirs, got, c.want)
		}
	}
}

func TestAppendPDU(t *testing.T) {
	b, err := AppendPDU([]byte("before"), Identifier{LSR: LSRID{10, 0, 0, 1}, Space: 1}, 0, KeepAlive{Head{ID: 1}}, KeepAlive{Head{ID: 2}})
	want := append([]byte("before"), unhex(t, "0001 0016 0a000001 0001 0201 0004 00000001 0201 0004 00000002")...)
	if err != nil || !bytes.Equal(want, b) {
		t.Errorf("%x, error %v; want %x", b, err, want)
	}
	if b, err = AppendPDU([]byte("before"), sender, 0); err != nil || string(b) != "before" {
		t.Errorf("no message: %q, error %v", b, err)
	}
}

// Messages go in as many PDUs as they need, each as full as can be; a message that fits none is refused.
func TestAppendPDUSplits(t *testing.T) {
	var messages []Message
	for i := range 40 {
		messages = append(messages, KeepAlive{Head{ID: uint32(i)}})
	}
	const limit = 256 // 31 KeepAlives of 8 bytes behind the identifier
	b, err := AppendPDU(nil, sender, limit, messages...)
	if err != nil {
		t.Fatal(err)
	}
	var f Framer
	f.SetMaxPDULength(limit)
	_, _ = f.Write(b)
	if got := receive(t, &f); len(got) != 2 || got[0] != 31 || got[1] != 9 {
		t.Errorf("PDUs of %v messages, want 31 and 9", got)
	}
	list := make([]netip.Addr, (limit-identifierSize-messageHeaderSize-tlvHeaderSize-familySize)/4)
	for i := range list {
		list[i] = addr("10.0.0.1")
	}
	fits := Address{AddressList: AddressList{IPv4, list}}
	if _, err := AppendPDU(nil, sender, limit, KeepAlive{}, fits, KeepAlive{}); err != nil {
		t.Errorf("a message as large as a PDU: %v", err)
	}
	fits.Addresses = append(list, list[0])
	for _, messages := range [][]Message{{fits}, {KeepAlive{}, fits}} {
		if b, err := AppendPDU([]byte("before"), sender, limit, messages...); !errors.Is(err, ErrTooLarge) || string(b) != "before" {
			t.Errorf("a larger one: %q, error %v", b, err)
		}
	}
	if b, err := AppendPDU([]byte("before"), sender, limit, KeepAlive{}, LabelMapping{}); !errors.Is(err, ErrInvalid) || string(b) != "before" {
		t.Errorf("one that cannot be sent: %q, error %v", b, err)
	}
}

// receive counts the messages of each PDU, which bear consecutive IDs.
func receive(t *testing.T, f *Framer) []int {
	t.Helper()
	var counts []int
	var id uint32
	for {
		pdu, ok, err := f.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return counts
		}
		if pdu.ID != sender {
			t.Errorf("PDU from %v", pdu.ID)
		}
		n := 0
		for m, err := range pdu.Messages() {
			if err != nil || m.MessageID() != id {
				t.Fatalf("%+v, error %v; want message %d", m, err, id)
			}
			n++
			id++
		}
		counts = append(counts, n)
	}
}

func TestMessagesTooLarge(t *testing.T) {
	for name, m := range map[string]Message{
		"TLV":     KeepAlive{Head{Others: []TLV{{Type: 0x3fff, Unknown: true, Value: make([]byte, 65536)}}}},
		"type":    KeepAlive{Head{Others: []TLV{{Type: 0x4000}}}},
		"message": UnknownMessage{MessageType: 0x3f00, Body: make([]byte, 65532)},
		"path":    LabelRequest{FEC: FEC{prefix("10.0.0.1/32")}, PathVector: make([]LSRID, 16384)},
	} {
		if b, err := AppendMessage(nil, m); !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrInvalid) || len(b) != 0 {
			t.Errorf("%s: %d bytes, error %v", name, len(b), err)
		}
	}
}

func TestStop(t *testing.T) {
	body := unhex(t, "0201 0004 00000001 0201 0004 00000002")
	n := 0
	for range (PDU{Body: body}).Messages() {
		n++
		break
	}
	if n != 1 {
		t.Errorf("%d messages after a break", n)
	}
}
