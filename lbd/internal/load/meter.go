package load

import (
	"math"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// smoothing is the time constant of what is smoothed: of a step two thirds are seen after so long, and 95 % after three times as
// long. Policies decide each 10 s.
const smoothing = 5 * time.Second

// Reading is what was measured at a moment.
type Reading struct {
	Machine  MachineReading
	Word     Word
	Services map[string]ServiceReading
}

// ServiceReading is what was measured of a service.
type ServiceReading struct {
	Slots   alloc.Slots
	Split   steer.Split        // whose packets go by their ports, too, and so are in no slot of their address
	Traffic dataplane.Traffic  // totals
	Senders []dataplane.Sender // since the reading before
	Inbound float64            // the part of Traffic.Packets that came from users, 0 to 1
	Sockets dataplane.Sockets
}

// Meter makes loads of readings. CPU, accepts, bytes, queue and the application's load are smoothed; memory pressure is already,
// and connections are as they were counted last.
type Meter struct {
	at          time.Time // of the last reading; zero: there is none
	machine     MachineReading
	cpu         average
	application average
	word        Word
	services    map[string]*gauge
}

// gauge is what is known of a service.
type gauge struct {
	last                  ServiceReading
	isMeasured            bool // a second reading was taken: there are rates
	accepts, bytes, queue average
	senders               senders
}

// Take takes a reading. Services that it lacks are forgotten.
func (m *Meter) Take(now time.Time, r Reading) {
	dt := now.Sub(m.at)
	isFirst := m.at.IsZero()
	if !isFirst && dt <= 0 {
		return
	}
	if spent := r.Machine.Total - m.machine.Total; !isFirst && spent > 0 {
		m.cpu.add(dt, clamp((r.Machine.Busy-m.machine.Busy)/spent, 0, 1))
	}
	if r.Word.Load != nil {
		m.application.add(dt, *r.Word.Load)
	} else {
		m.application = average{}
	}
	m.at, m.machine, m.word = now, r.Machine, r.Word
	services := make(map[string]*gauge, len(r.Services))
	for name, s := range r.Services {
		g := m.services[name]
		if g == nil {
			g = &gauge{}
		} else {
			g.take(dt, s)
		}
		g.last, services[name] = s, g
	}
	m.services = services
}

func (g *gauge) take(dt time.Duration, s ServiceReading) {
	g.isMeasured = true
	g.accepts.add(dt, float64(since(g.last.Traffic.Opened, s.Traffic.Opened))/dt.Seconds())
	g.bytes.add(dt, float64(since(g.last.Traffic.Bytes, s.Traffic.Bytes))/dt.Seconds())
	g.queue.add(dt, float64(s.Sockets.Waiting))
	g.senders.take(dt, s.Slots, s.Split, s.Senders, s.Inbound*float64(since(g.last.Traffic.Packets, s.Traffic.Packets)))
}

// since is how much a counter has grown. One that has shrunk began anew.
func since(before, after uint64) uint64 {
	if after < before {
		return after
	}
	return after - before
}

// Loads are the loads of services of which two readings were taken: before, rates would be 0, which is the load of a server that
// is idle.
func (m *Meter) Loads() map[string]alloc.Load {
	loads := make(map[string]alloc.Load, len(m.services))
	for name, g := range m.services {
		if !g.isMeasured {
			continue
		}
		l := alloc.Load{
			Connections: g.last.Sockets.Connections, Accepts: g.accepts.value, Bytes: g.bytes.value, Queue: int(math.Round(g.queue.value)),
			CPU: m.cpu.value, Memory: m.machine.Memory, Wanted: m.word.Wanted, Hot: g.senders.hot(),
		}
		if m.application.isSet {
			given := m.application.value
			l.Application = &given
		}
		loads[name] = l
	}
	return loads
}

// average is an exponentially weighted one.
type average struct {
	value float64
	isSet bool
}

// add takes a value that held for dt. The first one counts as it is.
func (a *average) add(dt time.Duration, value float64) {
	if !a.isSet {
		a.value, a.isSet = value, true
		return
	}
	a.value += (value - a.value) * (1 - math.Exp(-dt.Seconds()/smoothing.Seconds()))
}
