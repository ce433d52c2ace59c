package wire

import "fmt"

// StatusCode is the Status Data of a Status TLV, 30 bits (RFC 5036 section 3.4.6).
type StatusCode uint32

// Status codes: RFC 5036 section 3.9, RFC 3479 section 8.1, RFC 5561 section 8, RFC 5919 section 4, RFC 7552 section 6.1.1. RFC 6720
// and RFC 5918 add none.
const (
	StatusSuccess                     StatusCode = 0x00
	StatusBadLDPIdentifier            StatusCode = 0x01
	StatusBadProtocolVersion          StatusCode = 0x02
	StatusBadPDULength                StatusCode = 0x03
	StatusUnknownMessageType          StatusCode = 0x04
	StatusBadMessageLength            StatusCode = 0x05
	StatusUnknownTLV                  StatusCode = 0x06
	StatusBadTLVLength                StatusCode = 0x07
	StatusMalformedTLVValue           StatusCode = 0x08
	StatusHoldTimerExpired            StatusCode = 0x09
	StatusShutdown                    StatusCode = 0x0a
	StatusLoopDetected                StatusCode = 0x0b
	StatusUnknownFEC                  StatusCode = 0x0c
	StatusNoRoute                     StatusCode = 0x0d
	StatusNoLabelResources            StatusCode = 0x0e
	StatusLabelResourcesAvailable     StatusCode = 0x0f
	StatusRejectedNoHello             StatusCode = 0x10
	StatusRejectedAdvertisementMode   StatusCode = 0x11
	StatusRejectedMaxPDULength        StatusCode = 0x12
	StatusRejectedLabelRange          StatusCode = 0x13
	StatusKeepAliveTimerExpired       StatusCode = 0x14
	StatusLabelRequestAborted         StatusCode = 0x15
	StatusMissingMessageParameters    StatusCode = 0x16
	StatusUnsupportedAddressFamily    StatusCode = 0x17
	StatusRejectedBadKeepAliveTime    StatusCode = 0x18
	StatusInternalError               StatusCode = 0x19
	StatusNoLDPSession                StatusCode = 0x1a
	StatusZeroFTSeqnum                StatusCode = 0x1b
	StatusUnexpectedTLVSessionNotFT   StatusCode = 0x1c
	StatusUnexpectedTLVLabelNotFT     StatusCode = 0x1d
	StatusMissingFTProtectionTLV      StatusCode = 0x1e
	StatusFTACKSequenceError          StatusCode = 0x1f
	StatusTemporaryShutdown           StatusCode = 0x20
	StatusFTSeqNumbersExhausted       StatusCode = 0x21
	StatusFTSessionParametersChanged  StatusCode = 0x22
	StatusUnexpectedFTCorkTLV         StatusCode = 0x23
	StatusUnsupportedCapability       StatusCode = 0x2e
	StatusEndOfLIB                    StatusCode = 0x2f
	StatusTransportConnectionMismatch StatusCode = 0x32
	StatusDualStackNoncompliance      StatusCode = 0x33

	maxStatusCode = 1<<30 - 1
)

type statusMeaning struct {
	name  string
	fatal bool // the required setting of the E bit
}

// statusMeanings is indexed by code; codes without a name are unknown.
var statusMeanings = [...]statusMeaning{
	StatusSuccess:                     {"Success", false},
	StatusBadLDPIdentifier:            {"Bad LDP Identifier", true},
	StatusBadProtocolVersion:          {"Bad Protocol Version", true},
	StatusBadPDULength:                {"Bad PDU Length", true},
	StatusUnknownMessageType:          {"Unknown Message Type", false},
	StatusBadMessageLength:            {"Bad Message Length", true},
	StatusUnknownTLV:                  {"Unknown TLV", false},
	StatusBadTLVLength:                {"Bad TLV Length", true},
	StatusMalformedTLVValue:           {"Malformed TLV Value", true},
	StatusHoldTimerExpired:            {"Hold Timer Expired", true},
	StatusShutdown:                    {"Shutdown", true},
	StatusLoopDetected:                {"Loop Detected", false},
	StatusUnknownFEC:                  {"Unknown FEC", false},
	StatusNoRoute:                     {"No Route", false},
	StatusNoLabelResources:            {"No Label Resources", false},
	StatusLabelResourcesAvailable:     {"Label Resources / Available", false},
	StatusRejectedNoHello:             {"Session Rejected/No Hello", true},
	StatusRejectedAdvertisementMode:   {"Session Rejected/Parameters Advertisement Mode", true},
	StatusRejectedMaxPDULength:        {"Session Rejected/Parameters Max PDU Length", true},
	StatusRejectedLabelRange:          {"Session Rejected/Parameters Label Range", true},
	StatusKeepAliveTimerExpired:       {"KeepAlive Timer Expired", true},
	StatusLabelRequestAborted:         {"Label Request Aborted", false},
	StatusMissingMessageParameters:    {"Missing Message Parameters", false},
	StatusUnsupportedAddressFamily:    {"Unsupported Address Family", false},
	StatusRejectedBadKeepAliveTime:    {"Session Rejected/Bad KeepAlive Time", true},
	StatusInternalError:               {"Internal Error", true},
	StatusNoLDPSession:                {"No LDP Session", false},
	StatusZeroFTSeqnum:                {"Zero FT seqnum", true},
	StatusUnexpectedTLVSessionNotFT:   {"Unexpected TLV / Session Not FT", true},
	StatusUnexpectedTLVLabelNotFT:     {"Unexpected TLV / Label Not FT", true},
	StatusMissingFTProtectionTLV:      {"Missing FT Protection TLV", true},
	StatusFTACKSequenceError:          {"FT ACK sequence error", true},
	StatusTemporaryShutdown:           {"Temporary Shutdown", false},
	StatusFTSeqNumbersExhausted:       {"FT Seq Numbers Exhausted", true},
	StatusFTSessionParametersChanged:  {"FT Session parameters / changed", true},
	StatusUnexpectedFTCorkTLV:         {"Unexpected FT Cork TLV", true},
	StatusUnsupportedCapability:       {"Unsupported Capability", false},
	StatusEndOfLIB:                    {"End-of-LIB", false},
	StatusTransportConnectionMismatch: {"Transport Connection Mismatch", true},
	StatusDualStackNoncompliance:      {"Dual-Stack Noncompliance", true},
}

// meaning gives name and E bit; nothing for codes that nobody here knows.
func (c StatusCode) meaning() statusMeaning {
	if c < StatusCode(len(statusMeanings)) {
		return statusMeanings[c]
	}
	return statusMeaning{}
}

// String is the code's name in its RFC.
func (c StatusCode) String() string {
	if m := c.meaning(); m.name != "" {
		return m.name
	}
	return fmt.Sprintf("status %#x", uint32(c))
}

// Fatal says whether the code ends the session: the required setting of its E bit. It is false for codes that this package does not
// know: of those Status.Fatal says it, as received.
func (c StatusCode) Fatal() bool { return c.meaning().fatal }
