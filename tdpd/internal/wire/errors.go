package wire

import (
	"errors"
	"fmt"
)

// returnedMost is how much of TLVs an Error's notification returns, in bytes: none that is longer, for it has to fit into the smallest PDU
// that peers can agree on, and only an unsupported capability asks for it (RFC 5561 section 8).
const returnedMost = 128

// What is wrong with what was to be sent; errors of the Append functions wrap one of them.
var (
	ErrInvalid  = errors.New("cannot be sent")
	ErrTooLarge = errors.New("too large")
)

// Error is what is wrong with what a peer sent, and how RFC 5036 section 3.5.1.2 has an LSR react: where Fatal, it answers with the
// notification and closes the session; else it answers, ignores the message and goes on. What came in a datagram is discarded in
// silence, whatever the error says.
type Error struct {
	Status      StatusCode
	MessageID   uint32      // 0 where no message could be told
	MessageType MessageType // with its U bit; 0 likewise
	TLV         []byte      // the TLV that is to be returned, as received (RFC 5561 section 8); nil for most errors
	Reason      string      // for operators
}

// Error names the status and the reason.
func (e *Error) Error() string {
	if e.MessageType == 0 {
		return fmt.Sprintf("ldp: %v: %s", e.Status, e.Reason)
	}
	return fmt.Sprintf("ldp: %v: %v message %d: %s", e.Status, e.MessageType, e.MessageID, e.Reason)
}

// Fatal says whether the session ends.
func (e *Error) Fatal() bool { return e.Status.Fatal() }

// Notification is the answer, whose message ID is id. It fits into every PDU.
func (e *Error) Notification(id uint32) Notification {
	status := NewStatus(e.Status)
	status.MessageID, status.MessageType = e.MessageID, e.MessageType
	n := Notification{Head: Head{ID: id}, Status: status}
	if len(e.TLV) <= returnedMost {
		n.ReturnedTLVs = e.TLV
	}
	return n
}

// refuse makes an Error that knows of no message.
func refuse(s StatusCode, format string, args ...any) error {
	return &Error{Status: s, Reason: fmt.Sprintf(format, args...)}
}

// inMessage adds to an Error which message it is about.
func inMessage(err error, h header) error {
	var e *Error
	if errors.As(err, &e) {
		e.MessageID, e.MessageType = h.id, h.kind
	}
	return err
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// fatal is for errors of this package's decoders.
func fatal(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Fatal()
}
