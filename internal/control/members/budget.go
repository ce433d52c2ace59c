package members

import "time"

// Bounds of the signatures that are verified, a second and at once. Who has the group's key can make messages in anybody's name, each of
// which costs a verification: one member's name takes no more than its own share, and all that an interface brings a fraction of a
// core; that has to be more than one report a second of each of DefaultMembers. Heartbeats need no signature and are not held up.
const (
	ofMember, ofMemberAtOnce       = 100, 400
	ofInterface, ofInterfaceAtOnce = 5000, 10000
)

// budget is a token bucket; the zero budget is full.
type budget struct {
	spent float64
	at    time.Time
}

// take spends one of so many a second.
func (b *budget) take(now time.Time, rate, atOnce float64) bool {
	b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*rate)
	b.at = now
	if b.spent+1 > atOnce {
		return false
	}
	b.spent++
	return true
}

// budgets are by interface: what one link brings takes nothing from those of another.
type budgets map[string]*budget

func (b *budgets) take(now time.Time, iface string, rate, atOnce float64) bool {
	if *b == nil {
		*b = budgets{}
	}
	if (*b)[iface] == nil {
		(*b)[iface] = &budget{}
	}
	return (*b)[iface].take(now, rate, atOnce)
}

// affords says that there is time to verify a message that came by iface; p is nil where its sender is not known.
func (m *Members) affords(now time.Time, iface string, p *member) bool {
	return (p == nil || p.work.take(now, iface, ofMember, ofMemberAtOnce)) && m.work.take(now, iface, ofInterface, ofInterfaceAtOnce)
}
