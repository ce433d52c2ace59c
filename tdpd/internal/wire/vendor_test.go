package wire

import (
	"bytes"
	"errors"
	"testing"
)

var vendorPrivates = []example{
	{"vendorprivate", VendorPrivate{Head{ID: 42}, 0x3e01, true, 0x020304, []byte{0xbd, 2, 0, 1, 5}}},
	{"vendorprivate_known", VendorPrivate{Head{ID: 42}, 0x3eff, false, 0x020304, []byte{}}},
}

func TestVendorPrivate(t *testing.T) { both(t, vendorPrivates) }

func TestVendorPrivateRefuses(t *testing.T) {
	refused(t, map[string]Message{
		"type below": VendorPrivate{MessageType: 0x3dff},
		"type above": VendorPrivate{MessageType: 0x3f00},
	})
}

// A vendor that the caller does not know is answered where there is no U bit.
func TestVendorNotKnown(t *testing.T) {
	if err := vendorPrivates[0].message.(VendorPrivate).NotKnown(); err != nil {
		t.Errorf("with U bit: %v", err)
	}
	var e *Error
	err := vendorPrivates[1].message.(VendorPrivate).NotKnown()
	if !errors.As(err, &e) || e.Status != StatusUnknownMessageType || e.Fatal() || e.MessageID != 42 || e.MessageType != 0x3eff {
		t.Errorf("without U bit: %v", err)
	}
}

func TestVendorTLV(t *testing.T) {
	tlv := VendorTLV(0x3e01, 0x020304, []byte{5})
	b, err := tlv.append(nil)
	if want := unhex(t, "be01 0005 00020304 05"); err != nil || !bytes.Equal(want, b) {
		t.Errorf("%x, error %v; want %x", b, err, want)
	}
	if vendor, data, ok := tlv.Vendor(); !ok || vendor != 0x020304 || !bytes.Equal(data, []byte{5}) {
		t.Errorf("vendor %#x, data %x, %v", vendor, data, ok)
	}
	for _, other := range []TLV{{Type: 0x3dff, Value: make([]byte, 8)}, {Type: 0x3f00, Value: make([]byte, 8)}, {Type: 0x3e00, Value: make([]byte, 3)}} {
		if _, _, ok := other.Vendor(); ok {
			t.Errorf("%+v taken for a vendor's", other)
		}
	}
}

func FuzzVendorPrivate(f *testing.F) { fuzz(f, 0x3e01|messageU, vendorPrivates) }
