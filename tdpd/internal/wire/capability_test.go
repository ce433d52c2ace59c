package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

var capabilities = []example{
	{"capability", Capability{Head{ID: 42}, []CapabilityParameter{{TLVTypedWildcardCapability, false}, {TLVUnrecognizedNotification, true}}}},
}

func TestCapability(t *testing.T) { both(t, capabilities) }

func TestCapabilityRefuses(t *testing.T) {
	refused(t, map[string]Message{
		"dynamic": Capability{Capabilities: []CapabilityParameter{{TLVDynamicCapability, true}}},
		"twice":   Capability{Capabilities: []CapabilityParameter{{TLVTypedWildcardCapability, true}, {TLVTypedWildcardCapability, false}}},
	})
}

// RFC 5561 sections 4 and 9: what is for Initialization alone is ignored, and the rest counts.
func TestCapabilityIgnores(t *testing.T) {
	b := unhex(t, "0202 001e 0000002a 8503 000c 000000000000000000000000 8506 0001 00 850b 0001 80")
	m, _, err := parseMessage(b)
	want := Capability{Head{ID: 42}, []CapabilityParameter{{TLVTypedWildcardCapability, true}}}
	if err != nil || !cmp.Equal(Message(want), m) {
		t.Errorf("%+v, error %v; want %+v", m, err, want)
	}
}

func FuzzCapability(f *testing.F) { fuzz(f, TypeCapability, capabilities) }
