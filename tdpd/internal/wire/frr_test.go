package wire

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What FRR's ldpd 8.4 sends is decoded, and encoded to the same bytes; all but its pseudowires, which nobody here knows.
func TestFRRStreams(t *testing.T) {
	kinds := map[MessageType]int{}
	for _, file := range []string{"frr-stream1.hex", "frr-stream2.hex"} {
		var f Framer
		for _, line := range lines(t, file) {
			_, _ = f.Write(unhex(t, line))
		}
		for {
			pdu, ok, err := f.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			recode(t, pdu, kinds)
		}
		if f.Pending() != 0 {
			t.Errorf("%s: %d bytes left", file, f.Pending())
		}
	}
	for _, kind := range []MessageType{
		TypeInitialization, TypeKeepAlive, TypeAddress, TypeLabelMapping, TypeLabelWithdraw, TypeLabelRelease, TypeNotification,
	} {
		if kinds[kind] == 0 {
			t.Errorf("no %v message", kind)
		}
	}
}

// recode decodes a PDU and encodes it again: as a whole, or without its pseudowires message by message.
func recode(t *testing.T, pdu PDU, kinds map[MessageType]int) {
	t.Helper()
	var messages []Message
	whole := true
	rest := pdu.Body
	for m, err := range pdu.Messages() {
		_, size, headErr := parseHeader(rest)
		if headErr != nil {
			t.Fatal(headErr)
		}
		raw := rest[:size]
		rest = rest[size:]
		var e *Error
		if errors.As(err, &e) {
			if whole = false; e.Status != StatusUnknownFEC || e.Fatal() || !strings.Contains(e.Reason, "pseudowire") {
				t.Errorf("%x: %v", raw, err)
			}
			continue
		}
		kinds[m.Type()]++
		messages = append(messages, m)
		if b, err := AppendMessage(nil, m); err != nil || !bytes.Equal(raw, b) {
			t.Errorf("%+v encoded\n%x, error %v, want\n%x", m, b, err, raw)
		}
	}
	b, err := AppendPDU(nil, pdu.ID, 0, messages...)
	if err != nil || whole && !bytes.Equal(b[pduHeaderSize:], pdu.Body) {
		t.Errorf("PDU encoded\n%x, error %v", b, err)
	}
}

func TestFRRHellos(t *testing.T) {
	kinds := map[string]bool{}
	for _, line := range lines(t, "frr-hello.hex") {
		raw := unhex(t, line)
		id, hello, err := ParseHello(raw)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if b, err := AppendPDU(nil, id, 0, hello); err != nil || !bytes.Equal(raw, b) {
			t.Errorf("encoded\n%x, error %v, want\n%x", b, err, raw)
		}
		switch {
		case hello.Targeted:
			kinds["targeted"] = true
		case hello.IPv6Transport.IsValid():
			kinds["IPv6 link"] = true
		case hello.IPv4Transport.IsValid():
			kinds["IPv4 link"] = true
		}
		if hello.Preference != PreferIPv4 || hello.ConfigSequence == nil {
			t.Errorf("%s: %+v", line, hello)
		}
	}
	if len(kinds) != 3 {
		t.Errorf("saw %v", kinds)
	}
}

// What the first messages mean that the first router sent.
func TestFRRMessages(t *testing.T) {
	var f Framer
	for _, line := range lines(t, "frr-stream1.hex") {
		_, _ = f.Write(unhex(t, line))
	}
	var o outcome
	o.take(&f)
	for i := range o.messages { // a link-local address differs from run to run
		if a, ok := o.messages[i].(Address); ok && a.Family == IPv6 {
			a.Addresses = slices.DeleteFunc(a.Addresses, netip.Addr.IsLinkLocalUnicast)
			o.messages[i] = a
		}
	}
	peer := Identifier{LSR: LSRID{1, 1, 1, 2}}
	want := []Message{
		Initialization{
			Head:              Head{ID: 7},
			SessionParameters: SessionParameters{KeepAliveTime: 180, Receiver: peer},
			Capabilities: []CapabilityParameter{
				{TLVDynamicCapability, true}, {TLVTypedWildcardCapability, true}, {TLVUnrecognizedNotification, true},
			},
		},
		KeepAlive{Head{ID: 8}},
		Address{Head{ID: 9}, AddressList{IPv4, []netip.Addr{addr("10.0.0.1"), addr("1.1.1.1")}}},
		Address{Head{ID: 10}, AddressList{IPv6, []netip.Addr{addr("2001:db8:1::1"), addr("2001:db8::1")}}},
		LabelMapping{Head: Head{ID: 11}, FEC: FEC{prefix("1.1.1.1/32")}, Label: LabelExplicitNullIPv4},
		LabelMapping{Head: Head{ID: 12}, FEC: FEC{prefix("1.1.1.2/32")}, Label: 17},
	}
	if diff := cmp.Diff(want, o.messages[:len(want)], equate); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	end := len(o.messages) - 1
	last := LabelWithdraw{Head: Head{ID: 23}, FEC: FEC{prefix("192.0.2.0/25")}, Label: new(Label(18))}
	if diff := cmp.Diff(Message(last), o.messages[end], equate); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
