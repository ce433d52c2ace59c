package admission

// Reason says why a join was refused. The names are what counters, logs, the bus and the CLI show.
type Reason uint8

// The zero Reason is no refusal.
const (
	None Reason = iota
	Unsigned
	Duplicate
	NotTimely
	WrongLink
	NoKey
	BadSignature
	Overlap
	StaleEpoch
	RateLimited
	Malformed
	reasonCount
)

var reasonNames = [reasonCount]string{"", "unsigned", "duplicate", "not_timely", "wrong_link", "no_key", "bad_signature", "overlap",
	"stale_epoch", "rate_limited", "malformed"}

// String returns the reason's name, empty for None.
func (r Reason) String() string {
	if r >= reasonCount {
		return "unknown"
	}
	return reasonNames[r]
}

// Reasons returns all reasons of a refusal, in the order of the checks' names above.
func Reasons() []Reason {
	all := make([]Reason, 0, reasonCount-1)
	for r := Unsigned; r < reasonCount; r++ {
		all = append(all, r)
	}
	return all
}
