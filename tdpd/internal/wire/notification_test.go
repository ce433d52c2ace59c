package wire

import (
	"encoding/hex"
	"errors"
	"testing"
)

var notifications = []example{
	{"notification", Notification{Head: Head{ID: 42}, Status: NewStatus(StatusShutdown)}},
	{"notification_all", Notification{
		Head:            Head{ID: 42},
		Status:          Status{Code: StatusUnknownTLV, Forward: true, MessageID: 7, MessageType: 0xbfff},
		ExtendedStatus:  new(uint32(1)),
		ReturnedPDU:     []byte{0, 1, 0, 14, 1, 1, 1, 1, 0, 0, 2, 1, 0, 4},
		ReturnedMessage: []byte{2, 1, 0, 4},
		ReturnedTLVs:    []byte{0x3f, 0xff, 0, 0},
		RequestID:       new(uint32(9)),
	}},
	{"notification_endoflib", Notification{Head: Head{ID: 42}, Status: NewStatus(StatusEndOfLIB), FEC: FEC{TypedWildcard{IPv4}}}},
}

func TestNotification(t *testing.T) { both(t, notifications) }

func TestNotificationRefuses(t *testing.T) {
	refused(t, map[string]Message{
		"status of 31 bits": Notification{Status: Status{Code: 1 << 30}},
		"empty FEC":         Notification{FEC: FEC{}},
		"empty element":     Notification{FEC: FEC{nil}},
		"no prefix":         Notification{FEC: FEC{Prefix{}}},
		"family 3":          Notification{FEC: FEC{TypedWildcard{3}}},
	})
}

// What an LSR answers: the status with what it is about, and the TLV that was not known (RFC 5561 section 8).
func TestAnswer(t *testing.T) {
	_, _, err := parseMessage(unhex(t, "0201 000a 00000007 3fff 0002 0102"))
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v for an unknown TLV without U bit", err)
	}
	b, err := AppendMessage(nil, e.Notification(42))
	if err != nil {
		t.Fatal(err)
	}
	const want = "0001001c0000002a" + "0300000a00000006000000070201" + "830400063fff00020102"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("answered %s, want %s", got, want)
	}
}

func FuzzNotification(f *testing.F) { fuzz(f, TypeNotification, notifications) }
