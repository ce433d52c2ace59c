package wire

import (
	"bytes"
	"testing"
)

// The E bit counts as it was received: also codes that nobody here knows end the session (RFC 5036 section 3.4.6).
func TestStatusOfUnknownCode(t *testing.T) {
	b := unhex(t, "0001 0012 0000002a 4300 000a ff000001 00000007 8400")
	m, _, err := parseMessage(b)
	want := Status{Code: 0x3f000001, Fatal: true, Forward: true, MessageID: 7, MessageType: 0x8400}
	if err != nil || m.(Notification).Status != want {
		t.Fatalf("%+v, error %v; want %+v", m, err, want)
	}
	if out, err := AppendMessage(nil, m); err != nil || !bytes.Equal(b, out) {
		t.Errorf("%x, error %v; want %x", out, err, b)
	}
}
