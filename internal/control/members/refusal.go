package members

// Reason says why a frame was refused; errors of Frame wrap one.
type Reason string

// Error is the reason in words.
func (r Reason) Error() string { return string(r) }

// Reasons, as they stand in counters.
const (
	Malformed          Reason = "malformed"
	Version            Reason = "version" // of the frame, its type or its kind: a newer member
	NoKey              Reason = "no_key"
	BadMAC             Reason = "bad_mac"
	UnknownSender      Reason = "unknown_sender" // no report of it so far
	WrongSource        Reason = "wrong_source"   // not by its certificate's address
	StaleBoot          Reason = "stale_boot"     // of a life that is over, or not yet proven
	Replayed           Reason = "replayed"
	BadChain           Reason = "bad_chain"
	NotTimely          Reason = "not_timely"
	BadCertificate     Reason = "bad_certificate"
	ExpiredCertificate Reason = "expired_certificate"
	BadSignature       Reason = "bad_signature"
	NotAllowed         Reason = "not_allowed" // by the role in its certificate
	TooLarge           Reason = "too_large"
	Full               Reason = "full"
	RateLimited        Reason = "rate_limited" // more signatures than there is time for
)

// Counters are since New.
type Counters struct {
	Heartbeats uint64 // taken
	Copies     uint64 // of those, by another interface
	Messages   uint64 // taken
	Stalls     uint64 // times that this process stood still too long to tell who is silent
	Refused    map[Reason]uint64
}

// Counters returns a copy.
func (m *Members) Counters() Counters {
	c := m.counted
	c.Refused = make(map[Reason]uint64, len(m.counted.Refused))
	for r, n := range m.counted.Refused {
		c.Refused[r] = n
	}
	return c
}
