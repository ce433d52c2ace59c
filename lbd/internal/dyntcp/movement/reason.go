package movement

// Reason is why a destination is not believed.
type Reason uint8

// Reasons, in the order in which they are found: what costs nothing first, the signature last.
const (
	Malformed         Reason = iota + 1 // not the layout, or not the version
	UnknownConnection                   // none of that user's end, VIP and cookie
	WrongCookie                         // of a connection that there is
	WrongTag                            // likewise
	OtherService                        // the cookie is of a connection to another VIP
	Stale                               // the move is not later than the one that is known: a replay, a copy, one overtaken
	Expired                             // signed too long ago
	Future                              // signed too far ahead, or with a sequence that is
	OutsideSet                          // the destination is none that the service publishes
	UnknownKey                          // the service has no such key now, or nothing is known of the service
	TooMany                             // signatures to be checked
	BadSignature
	reasons // how many there are
)

// String is the reason as counters and logs have it.
func (r Reason) String() string {
	names := [reasons]string{
		Malformed: "malformed", UnknownConnection: "unknown_connection", WrongCookie: "wrong_cookie", WrongTag: "wrong_tag",
		OtherService: "other_service", Stale: "stale", Expired: "expired", Future: "future", OutsideSet: "outside_set",
		UnknownKey: "unknown_key", TooMany: "too_many", BadSignature: "bad_signature",
	}
	if r == 0 || r >= reasons {
		return "unknown"
	}
	return names[r]
}

// Reasons are all there are, for counters.
func Reasons() []Reason {
	all := make([]Reason, 0, reasons-1)
	for r := Malformed; r < reasons; r++ {
		all = append(all, r)
	}
	return all
}
