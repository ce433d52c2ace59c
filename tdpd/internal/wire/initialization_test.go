package wire

import (
	"testing"
	"time"
)

var initializations = []example{
	{"initialization", Initialization{
		Head:              Head{ID: 42},
		SessionParameters: SessionParameters{KeepAliveTime: 180, MaxPDULength: 4096, Receiver: Identifier{LSR: LSRID{10, 0, 0, 2}}},
	}},
	{"initialization_all", Initialization{
		Head: Head{ID: 42, Others: []TLV{VendorTLV(0x3e00, 0x020304, []byte{0xff})}},
		SessionParameters: SessionParameters{
			KeepAliveTime: 30, DownstreamOnDemand: true, LoopDetection: true, PathVectorLimit: 32, MaxPDULength: 1500,
			Receiver: Identifier{LSR: LSRID{10, 0, 0, 2}, Space: 1},
		},
		ATM:        LinkParameters{0x44, 0, 0, 0, 0, 1, 0, 0x20, 0, 2, 0, 0xff},
		FrameRelay: LinkParameters{0, 0, 0, 0},
		FTSession:  &FTSession{Reconnect: true, LearnFromNetwork: true, ReconnectTimeout: 2 * time.Minute, RecoveryTime: 10 * time.Second},
		Capabilities: []CapabilityParameter{
			{TLVDynamicCapability, true}, {TLVTypedWildcardCapability, true}, {TLVUnrecognizedNotification, true},
		},
	}},
}

func TestInitialization(t *testing.T) { both(t, initializations) }

func TestInitializationRefuses(t *testing.T) {
	change := func(f func(*Initialization)) Initialization {
		m := initializations[0].message.(Initialization)
		f(&m)
		return m
	}
	refused(t, map[string]Message{
		"KeepAlive Time 0": change(func(m *Initialization) { m.KeepAliveTime = 0 }),
		"limit without D":  change(func(m *Initialization) { m.PathVectorLimit = 1 }),
		"withdrawn":        change(func(m *Initialization) { m.Capabilities = []CapabilityParameter{{Type: TLVDynamicCapability}} }),
		"no capability":    change(func(m *Initialization) { m.Capabilities = []CapabilityParameter{{TLVFEC, true}} }),
		"twice": change(func(m *Initialization) {
			m.Capabilities = []CapabilityParameter{{TLVDynamicCapability, true}, {TLVDynamicCapability, true}}
		}),
		"ATM ranges":  change(func(m *Initialization) { m.ATM = LinkParameters{0x44, 0, 0, 0} }),
		"empty frame": change(func(m *Initialization) { m.FrameRelay = LinkParameters{} }),
	})
}

// RFC 5561 section 6: what the S bit says counts for nothing in an Initialization message; RFC 5036 section 3.5.3: nor does a limit
// without loop detection, and reserved bits.
func TestInitializationIgnores(t *testing.T) {
	b := unhex(t, "0200 001b 0000002a 0500 000e 0001 00b4 3f20 1000 0a000002 0000 850b 0001 7f")
	m, _, err := parseMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	i := m.(Initialization)
	if len(i.Capabilities) != 1 || !i.Capabilities[0].Enabled || i.PathVectorLimit != 0 || i.LoopDetection || i.DownstreamOnDemand {
		t.Errorf("%+v", i)
	}
}

func FuzzInitialization(f *testing.F) { fuzz(f, TypeInitialization, initializations) }
