package load

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/agent"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// Plane is what a Task uses of dataplane.AgentPlane.
type Plane interface {
	Counters() (dataplane.AgentCounters, error)
	Traffic() (map[netip.Addr]dataplane.Traffic, error)
	Senders() (map[netip.Addr][]dataplane.Sender, error)
	Shed(group netip.Addr, share int) error
	Shedding(group netip.Addr) (share int, err error)
	Redirect(group netip.Addr, share int, to netip.Addr) error
	Redirecting(group netip.Addr) (share int, to netip.Addr, err error)
	FlowUsers(vips []netip.Addr, ports []dataplane.Port) ([]netip.AddrPort, error)
}

// Sources are what a Task measures by.
type Sources struct {
	Plane   Plane
	Sockets func(ctx context.Context, local []netip.AddrPort) ([]dataplane.Sockets, error)                 // dataplane.CountSockets
	Users   func(ctx context.Context, vips []netip.Addr, ports []dataplane.Port) ([]netip.AddrPort, error) // dataplane.ConnectedUsers
	Machine func(now time.Time) (MachineReading, error)                                                    // Machine.Read
	Channel control.Channel                                                                                // nil: the other servers are not heard
}

// Task measures, reports and sheds. One goroutine runs it.
type Task struct {
	config      Config
	name        string // of this server, on the channel
	sources     Sources
	application *Application
	log         *slog.Logger

	meter    Meter
	counters dataplane.AgentCounters
	packets  uint64 // of all groups, both directions
	inbound  float64
	sockets  sockets
	machine  MachineReading
	at       time.Time

	others    others
	diverting map[string]diversion
	state     state
}

// NewTask returns one that has yet to run. The configuration has been checked; name is the server's own.
func NewTask(c Config, name string, s Sources, log *slog.Logger) *Task {
	return &Task{config: c, name: name, sources: s, application: NewApplication(c, log), log: log, diverting: map[string]diversion{}, state: newState()}
}

// staleAfter is how many intervals a reading is good for.
const staleAfter = 5

// Measure implements agent.Measure.
func (t *Task) Measure(ctx context.Context, serving func() []agent.Serving, report func(map[string]alloc.Load)) {
	if t.sources.Channel != nil {
		defer t.sources.Channel.Listen(t.others.hear)()
	}
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { t.application.Run(ctx) })
	tick := time.NewTicker(t.config.Interval)
	defer tick.Stop()
	for {
		t.once(ctx, serving(), report)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (t *Task) once(ctx context.Context, serving []agent.Serving, report func(map[string]alloc.Load)) {
	now := time.Now()
	r, ok := t.read(ctx, now, serving)
	if !ok || ctx.Err() != nil { // rates would be wrong: the next reading is of both intervals
		if !ok && now.Sub(t.at) > staleAfter*t.config.Interval {
			report(nil) // old figures would count as if they were of now
		}
		return
	}
	t.meter.Take(now, r)
	loads := t.meter.Loads()
	t.countKept(ctx, serving, loads)
	report(loads)
	t.shed(now, serving, loads)
	t.at = now
	t.state.tell(loads, r)
}

// read measures. What cannot be read is said once in the log, counted, and taken to be as it was; without the data plane there
// is no reading.
func (t *Task) read(ctx context.Context, now time.Time, serving []agent.Serving) (Reading, bool) {
	traffic, err := t.sources.Plane.Traffic()
	if t.failed(plane, err) {
		return Reading{}, false
	}
	senders, err := t.sources.Plane.Senders()
	if t.failed(plane, err) {
		return Reading{}, false
	}
	t.measureInbound(traffic)
	if machine, err := t.sources.Machine(now); !t.failed(machineFigures, err) {
		t.machine = machine
	}
	t.countSockets(ctx, now, serving)
	r := Reading{Machine: t.machine, Word: t.application.Word(now), Services: make(map[string]ServiceReading, len(serving))}
	for _, s := range serving {
		if of, ok := traffic[s.Destination()]; ok {
			r.Services[s.Name] = ServiceReading{
				Slots: s.Slots, Split: s.Split, Traffic: of, Senders: senders[s.Destination()], Inbound: t.inbound, Sockets: t.sockets.of(s),
			}
		}
	}
	return r, true
}

// countKept adds what is kept of users who moved, connections of TCP and flows of UDP. Of a service whose users cannot be read nothing is said: it counts as if all were kept.
func (t *Task) countKept(ctx context.Context, serving []agent.Serving, loads map[string]alloc.Load) {
	for _, s := range serving {
		l, known := loads[s.Name]
		if s.Kept == nil || !known {
			continue
		}
		var connected []netip.AddrPort
		if s.MayKeep {
			var err error
			if connected, err = t.sources.Users(ctx, s.VIPs(), s.Ports); t.failed(socketTable, err) {
				continue
			}
			flows, err := t.sources.Plane.FlowUsers(s.VIPs(), s.Ports)
			if t.failed(plane, err) {
				continue
			}
			connected = append(connected, flows...)
		}
		if s.Pin != nil {
			s.Pin(slices.Values(connected))
		}
		k := s.Kept(time.Now(), slices.Values(connected))
		l.Kept = &k
		loads[s.Name] = l
	}
}

// measureInbound finds out which part of the packets comes from users: a sample tells who sends, but not of how many.
func (t *Task) measureInbound(traffic map[netip.Addr]dataplane.Traffic) {
	counters, err := t.sources.Plane.Counters()
	if t.failed(plane, err) {
		return
	}
	var packets uint64
	for _, of := range traffic {
		packets += of.Packets
	}
	if all := since(t.packets, packets); all > 0 {
		t.inbound = min(float64(since(t.counters.Delivered, counters.Delivered))/float64(all), 1)
	}
	t.packets, t.counters = packets, counters
}

// sourceOf names what can fail, in the log and in metrics.
type sourceOf string

const (
	plane          sourceOf = "data plane"
	machineFigures sourceOf = "machine"
	socketTable    sourceOf = "socket table"
	shedding       sourceOf = "shedding"
	diverting      sourceOf = "diverting"
	application    sourceOf = "application"
)

// failed tells the log when a source begins to fail, and when it is back.
func (t *Task) failed(s sourceOf, err error) bool {
	switch isNews := t.state.count(s, err != nil); {
	case isNews && err != nil:
		t.log.Warn("load is not known in full", "source", string(s), "err", err)
	case isNews:
		t.log.Info("load is known again", "source", string(s))
	}
	return err != nil
}

// sockets are those of all services, counted as often as a thirtieth of one CPU allows.
type sockets struct {
	counts map[netip.AddrPort]dataplane.Sockets
	next   time.Time
}

// costs is how much longer than the last count took the next one waits. With 100,000 connections it took 0.27 s of CPU
// (BenchmarkNetCountSockets): a count each 8 s, which is less than the 10 s between two decisions of a policy.
const costs = 30

func (t *Task) countSockets(ctx context.Context, now time.Time, serving []agent.Serving) {
	var local []netip.AddrPort
	isNew := false
	for _, s := range serving {
		for _, l := range endpoints(s) {
			_, known := t.sockets.counts[l]
			local, isNew = append(local, l), isNew || !known
		}
	}
	if len(local) == 0 || now.Before(t.sockets.next) && !isNew {
		return
	}
	counts, err := t.sources.Sockets(ctx, local)
	t.sockets.next = now.Add(costs * time.Since(now))
	if t.failed(socketTable, err) {
		return
	}
	t.sockets.counts = make(map[netip.AddrPort]dataplane.Sockets, len(local))
	for i, l := range local {
		t.sockets.counts[l] = counts[i]
	}
}

func (s *sockets) of(service agent.Serving) dataplane.Sockets {
	var sum dataplane.Sockets
	for _, l := range endpoints(service) {
		c := s.counts[l]
		sum.Connections += c.Connections
		sum.Waiting += c.Waiting
		sum.Backlog += c.Backlog
	}
	return sum
}

func endpoints(s agent.Serving) []netip.AddrPort {
	var out []netip.AddrPort
	for _, p := range s.Ports {
		if p.Proto == "tcp" {
			out = append(out, netip.AddrPortFrom(s.VIP, p.Number))
		}
	}
	return out
}
