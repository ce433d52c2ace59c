package report

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/lab/traffic"
)

// DynTCP is what became of connections to a service with dynamic TCP. Its own figures are of users whose hosts follow connections.
type DynTCP struct {
	Carried
	Followed  uint64            `json:"followed"`   // changes of destination that users' hosts believed
	Hijacked  int               `json:"hijacked"`   // connections with bytes of who is no server, or that went where none is; of all users
	Attacks   int               `json:"attacks"`    // messages that attackers sent
	Refused   uint64            `json:"refused"`    // messages, by users' hosts: those of attackers, and what servers repeated
	RefusedBy map[string]uint64 `json:"refused_by"` // reason
	Plain     Carried           `json:"plain"`      // of users whose hosts know nothing of it
	Handshake Handshakes        `json:"handshake_us"`
}

// Carried is what became of the connections of some users who move.
type Carried struct {
	Connections    int    `json:"connections"` // opened
	Moves          int    `json:"moves"`       // of connections: their user went to another server while they were open
	Switched       int    `json:"switched"`    // streams that went on at another server
	Broken         int    `json:"broken"`
	LostWithServer int    `json:"lost_with_server"`
	StreamsEnded   int    `json:"streams_ended"` // in peace: both ends have told what came
	BytesReceived  uint64 `json:"bytes_received"`
	BytesLost      uint64 `json:"bytes_lost"`
	BytesDoubled   uint64 `json:"bytes_doubled"`
	BytesReordered uint64 `json:"bytes_reordered"`
	BytesGarbled   uint64 `json:"bytes_garbled"`
	Blackout       Spread `json:"blackout_ms"` // as in Handover
	Switch         Spread `json:"switch_ms"`
	Quiet          Spread `json:"quiet_ms"`
}

// Whole says whether all bytes came once and in order.
func (c Carried) Whole() bool {
	return c.BytesLost == 0 && c.BytesDoubled == 0 && c.BytesReordered == 0 && c.BytesGarbled == 0
}

// Handshakes are how long connections take to be made, microseconds.
type Handshakes struct {
	Count    int     `json:"count"` // of each
	Plain    float64 `json:"plain"` // half of them were faster
	Extended float64 `json:"extended"`
}

// NewHandshakes says how times spread, of users whose hosts follow connections and of others.
func NewHandshakes(plain, extended []time.Duration) Handshakes {
	half := func(times []time.Duration) float64 {
		if len(times) == 0 {
			return 0
		}
		return float64(slices.Sorted(slices.Values(times))[(len(times)-1)/2].Nanoseconds()) / 1000
	}
	return Handshakes{min(len(plain), len(extended)), half(plain), half(extended)}
}

// Carried judges the connections of some users under the one strategy that there was; broken has those that nothing excuses.
func (t *Tally) Carried(of func(netip.Addr) bool) (c Carried, broken []traffic.Event) {
	if len(t.Periods) == 0 {
		return c, nil
	}
	by, all := t.of(of).Handovers()
	strategy := t.Periods[0].Strategy
	h := by[strategy]
	return Carried{
		Connections: h.Connections, Moves: h.Moves, Switched: h.Switched, Broken: h.Broken, LostWithServer: h.LostWithServer,
		StreamsEnded: h.StreamsEnded, BytesReceived: h.BytesReceived, BytesLost: h.BytesLost, BytesDoubled: h.BytesDoubled,
		BytesReordered: h.BytesReordered, BytesGarbled: h.BytesGarbled, Blackout: h.Blackout, Switch: h.Switch, Quiet: h.Quiet,
	}, all[strategy]
}

// Foreign are the connections on which bytes came that no server has written.
func (t *Tally) Foreign() (foreign []traffic.Event) {
	type connection struct {
		user netip.Addr
		id   int64
	}
	seen := map[connection]bool{}
	note := func(e traffic.Event) {
		c := connection{e.User, e.Conn}
		if !seen[c] {
			seen[c] = true
			foreign = append(foreign, e)
		}
	}
	for _, e := range t.silences {
		if e.Kind == traffic.Switch && e.Server == "" {
			note(e)
		}
	}
	for _, e := range t.closes {
		if e.Bytes != nil && (e.Bytes.Down.Garbled > 0 || e.Bytes.Up != nil && e.Bytes.Up.Garbled > 0) {
			note(e)
		}
	}
	return foreign
}

// of is the tally of some users.
func (t *Tally) of(users func(netip.Addr) bool) *Tally {
	some := func(events []traffic.Event) (of []traffic.Event) {
		for _, e := range events {
			if users(e.User) {
				of = append(of, e)
			}
		}
		return of
	}
	return &Tally{
		Timeline: t.Timeline, Deaths: t.Deaths, Spans: t.Spans, Periods: t.Periods,
		requests: some(t.requests), closes: some(t.closes), silences: some(t.silences), flows: some(t.flows),
	}
}
