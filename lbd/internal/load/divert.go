package load

import (
	"math"
	"net/netip"
	"time"

	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// Diverting is how many users' new connections another server answers, where connections say where they live (dynamic TCP). The zero
// Diverting sends nobody elsewhere.
type Diverting struct {
	Diverted float64    // part of the users, 0 to 1
	To       netip.Addr // the server
}

// Other is another server that takes connections of the service.
type Other struct {
	Address netip.Addr
	Load    float64 // 1 is as much as it can bear
}

// Share is of how many of 1,024 users.
func (d Diverting) Share() int { return int(math.Round(d.Diverted * dataplane.ShedAll)) }

// Next is what is diverted dt later: more users by the own excess over the threshold, fewer by what is missing, at the pace of Shedding. They go to
// one server, which is another one's turn when it has too much to do itself, hysteresis below the threshold. Where all have, nobody is diverted:
// they would be sent in a circle, and it is time to shed.
func (d Diverting) Next(dt time.Duration, o Overload, others []Other) Diverting {
	enough := o.Threshold * (1 - hysteresis)
	to, found := d.target(enough, others)
	if o.Threshold <= 0 || !found {
		return Diverting{}
	}
	excess := 0.0
	switch {
	case o.Own >= o.Threshold:
		excess = min(o.Own/o.Threshold-1, 1)
	case o.Own < enough:
		excess = o.Own/o.Threshold - 1
	}
	part := max(0, 1-(1-d.Diverted)*math.Exp(-excess*dt.Seconds()/o.pace().Seconds()))
	if part == 0 {
		return Diverting{}
	}
	return Diverting{part, to}
}

// target stays while it has room; then it is the least loaded one, of several the first by address.
func (d Diverting) target(enough float64, others []Other) (to netip.Addr, found bool) {
	least := math.Inf(1)
	for _, o := range others {
		switch {
		case o.Load >= enough:
		case o.Address == d.To:
			return d.To, true
		case o.Load < least || o.Load == least && o.Address.Less(to):
			to, least, found = o.Address, o.Load, true
		}
	}
	return to, found
}
