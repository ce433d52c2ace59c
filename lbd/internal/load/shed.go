package load

import (
	"math"
	"time"

	"github.com/manycast/manycast/lbd/internal/dataplane"
)

const (
	// hysteresis is the part of the threshold below which less is shed: between the two nothing changes.
	hysteresis = 0.05
	// longest is as long as connections are taken to last.
	longest = time.Minute
	// patience is how long a server that has too much to do waits for others to take users: a few decisions of a leader.
	patience = time.Minute
)

// Shedding is how many users a server refuses, and why it came to it. The zero Shedding refuses nobody.
type Shedding struct {
	Refused float64       // part of the users whose new connections are refused, 0 to 1
	Above   time.Duration // since it refused nobody, the own load has been above the threshold for so long
}

// Resumed is what goes on after a restart, where the data plane has gone on refusing.
func Resumed(share int) Shedding {
	if share == 0 {
		return Shedding{}
	}
	return Shedding{Refused: float64(share) / dataplane.ShedAll, Above: patience}
}

// Share is of how many of 1,024 users new connections are refused.
func (s Shedding) Share() int { return int(math.Round(s.Refused * dataplane.ShedAll)) }

// Overload is what a server knows of its service's load.
type Overload struct {
	Threshold float64       // 0: never shed
	Own       float64       // 1 is as much as it can bear; more where that is known
	Others    []float64     // of the other available servers that own users
	Alone     bool          // the others are not known: there is no way to hear them
	Lasting   time.Duration // how long a connection lasts, about
}

// Next is what is refused dt later. While everybody is above the threshold, hysteresis granted to the others, for they shed, too,
// more users are refused by the own excess; below it fewer, by what is missing. Connections that are there stay.
//
// One server's word does not keep the others from it for ever: where the own load stays above the threshold for a minute and
// nobody took users away, either that word was not true or nobody moves users by load, and the server sheds to keep what it
// serves. A server that says that it is idle delays the others by that minute; one that says that it is full makes nobody shed
// who is not full himself. The same minute holds for a server that cannot hear the others.
func (s Shedding) Next(dt time.Duration, o Overload) Shedding {
	if o.Threshold <= 0 {
		return Shedding{}
	}
	enough := o.Threshold * (1 - hysteresis)
	lowest := o.Own
	if o.Alone {
		lowest = 0
	}
	for _, other := range o.Others {
		lowest = min(lowest, other)
	}
	switch {
	case o.Own >= o.Threshold:
		s.Above += dt
	case o.Own < enough && s.Refused == 0:
		s.Above = 0
	}
	if s.Above >= patience {
		lowest = o.Own
	}
	excess := 0.0
	switch {
	case lowest < enough:
		excess = lowest/o.Threshold - 1
	case o.Own >= o.Threshold:
		excess = min(o.Own/o.Threshold-1, 1)
	}
	s.Refused = max(0, 1-(1-s.Refused)*math.Exp(-excess*dt.Seconds()/o.pace().Seconds()))
	return s
}

// pace is the time in which the part of users that is served follows the excess, as a part of the threshold. Load follows the users
// late, by its smoothing and as long as connections last: a loop that takes twice as long as its lag swings past its aim by
// a few percent once, and then stands still.
func (o Overload) pace() time.Duration { return 2 * (smoothing + min(o.Lasting, longest)) }
