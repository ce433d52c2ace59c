package wire

import "testing"

var unknowns = []example{
	{"unknown", UnknownMessage{Head{ID: 42}, 0x3f00, []byte{0xf0, 0, 0, 0, 0xbd, 2, 0, 1, 5}}},
}

func TestUnknownMessage(t *testing.T) { both(t, unknowns) }

func TestUnknownMessageRefuses(t *testing.T) {
	refused(t, map[string]Message{"type of 16 bits": UnknownMessage{MessageType: messageU}})
}
