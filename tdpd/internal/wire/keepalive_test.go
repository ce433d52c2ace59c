package wire

import "testing"

var keepAlives = []example{
	{"keepalive", KeepAlive{Head{ID: 42}}},
	{"keepalive_unknown", KeepAlive{Head{ID: 42, Others: []TLV{
		{Type: 0x3d00, Unknown: true, Value: []byte{1, 2, 3}},
		{Type: 0x3d01, Unknown: true, Forward: true, Value: []byte{}},
		{Type: 0x3d00, Unknown: true, Value: []byte{}},
	}}}},
}

func TestKeepAlive(t *testing.T) { both(t, keepAlives) }

func FuzzKeepAlive(f *testing.F) { fuzz(f, TypeKeepAlive, keepAlives) }
