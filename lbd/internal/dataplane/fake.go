package dataplane

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// errClosed is what a fake says after Close.
var errClosed = errors.New("data plane is closed")

// FakeDirector is a DirectorPlane without a kernel: it checks as the real one does and records what was set.
type FakeDirector struct {
	fake[DirectorService, DirectorCounters]
}

// NewFakeDirector returns a plane that has nothing set.
func NewFakeDirector() *FakeDirector {
	return &FakeDirector{fake[DirectorService, DirectorCounters]{check: checkDirector}}
}

// FakeAgent is an AgentPlane without a kernel: it checks as the real one does and records what was set.
type FakeAgent struct {
	fake[AgentService, AgentCounters]
	forwards
	hold         time.Duration // 0: alive for ever once revived
	until        time.Time
	inStead      time.Time // until when users are taken in the stead of others
	former       int       // sets of agents before this one
	revived      bool
	paused       bool
	renewals     int
	traffic      map[netip.Addr]Traffic
	trafficFails error
	senders      map[netip.Addr][]Sender
	sheds        map[netip.Addr]int
	redirects    map[netip.Addr]redirect
}

// NewFakeAgent returns a plane that has nothing set, and takes leased users for ever.
func NewFakeAgent() *FakeAgent {
	return &FakeAgent{fake: fake[AgentService, AgentCounters]{check: checkAgent}, forwards: newForwards()}
}

// NewMortalAgent returns one that takes leased users for hold after each sign of life.
func NewMortalAgent(hold time.Duration) *FakeAgent {
	f := NewFakeAgent()
	f.hold = hold
	return f
}

// Close ends gates and Strays, too.
func (f *FakeAgent) Close(keep bool) error {
	f.close()
	return f.fake.Close(keep)
}

// Prepare checks as Set does.
func (f *FakeAgent) Prepare(services []AgentService) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	return f.check(services)
}

// Revive counts as a renewal, too.
func (f *FakeAgent) Revive() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	f.revived = true
	f.liveOn()
	return nil
}

// Renew counts.
func (f *FakeAgent) Renew() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return errClosed
	case f.paused:
		return nil
	case !f.alive():
		return ErrLapsed
	}
	f.liveOn()
	return nil
}

func (f *FakeAgent) liveOn() {
	f.renewals, f.until = f.renewals+1, time.Now().Add(f.hold)
	if len(f.sets) > f.former {
		f.inStead = f.until
	}
}

// Alive tells whether leased users are taken now.
func (f *FakeAgent) Alive() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.alive(), nil
}

func (f *FakeAgent) alive() bool {
	return f.revived && (f.hold == 0 || time.Now().Before(f.until))
}

// Pause makes the fake live for d, but for InStead.
func (f *FakeAgent) Pause(d time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	if !f.alive() {
		return ErrLapsed
	}
	f.paused, f.until = true, time.Now().Add(d)
	return nil
}

// Restart is what a next agent finds: all is set as it was, and lives as long as it was to live.
func (f *FakeAgent) Restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed, f.paused, f.former = false, false, len(f.sets)
	f.open()
}

// Takes reports whether a packet for group from user goes to the application now.
func (f *FakeAgent) Takes(group, user netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sets) == 0 || f.closed && !f.kept {
		return false
	}
	for _, s := range f.sets[len(f.sets)-1] {
		if s.Tagged && s.VIP == group {
			return true
		}
		if s.Group == group {
			hears := f.hold == 0 || time.Now().Before(f.inStead)
			return s.Accept.Contains(user) && (!s.Leased || f.alive() && (hears || !s.InStead.Contains(user)))
		}
	}
	return false
}

// Traffic returns what SetTraffic said.
func (f *FakeAgent) Traffic() (map[netip.Addr]Traffic, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosed
	}
	return maps.Clone(f.traffic), f.trafficFails
}

// FailTraffic lets Traffic fail; nil ends that.
func (f *FakeAgent) FailTraffic(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trafficFails = err
}

// Senders returns what SetTraffic said, once.
func (f *FakeAgent) Senders() (map[netip.Addr][]Sender, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	senders := f.senders
	f.senders = nil
	return senders, nil
}

// SetTraffic says what Traffic and Senders answer.
func (f *FakeAgent) SetTraffic(traffic map[netip.Addr]Traffic, senders map[netip.Addr][]Sender) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.traffic, f.senders = maps.Clone(traffic), senders
}

// Shed records the share.
func (f *FakeAgent) Shed(group netip.Addr, share int) error {
	if err := checkShed(group, share); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sheds == nil {
		f.sheds = make(map[netip.Addr]int)
	}
	f.sheds[group] = share
	return nil
}

// Shedding returns the share of a group's users that are refused.
func (f *FakeAgent) Shedding(group netip.Addr) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sheds[group], nil
}

// redirect is what Redirect said.
type redirect struct {
	share int
	to    netip.Addr
}

// Redirect records share and server.
func (f *FakeAgent) Redirect(group netip.Addr, share int, to netip.Addr) error {
	if err := checkRedirect(group, share, to); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.redirects == nil {
		f.redirects = make(map[netip.Addr]redirect)
	}
	f.redirects[group] = redirect{share, to}
	if share == 0 {
		delete(f.redirects, group)
	}
	return nil
}

// Redirecting returns them.
func (f *FakeAgent) Redirecting(group netip.Addr) (int, netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.redirects[group]
	return r.share, r.to, nil
}

// Renewals returns how often Revive and Renew were called.
func (f *FakeAgent) Renewals() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.renewals
}

var (
	_ DirectorPlane = (*FakeDirector)(nil)
	_ AgentPlane    = (*FakeAgent)(nil)
)

// fake is what both fakes do. It may be used from several goroutines.
type fake[S, C any] struct {
	check func([]S) error

	mu       sync.Mutex
	sets     [][]S
	counters C
	fail     error
	closed   bool
	kept     bool
}

// Set records services unless they contradict each other or the fake is told to fail.
func (f *fake[S, C]) Set(services []S) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	if err := f.check(services); err != nil {
		return err
	}
	if f.fail != nil {
		return f.fail
	}
	f.sets = append(f.sets, slices.Clone(services))
	return nil
}

// Counters returns what SetCounters said.
func (f *fake[S, C]) Counters() (C, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return f.counters, errClosed
	}
	return f.counters, nil
}

// Close ends the fake; Closed tells how.
func (f *fake[S, C]) Close(keep bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed, f.kept = true, keep
	return nil
}

// Sets returns all that was set so far, oldest first.
func (f *fake[S, C]) Sets() [][]S {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.sets)
}

// Current returns what was set last, nil before the first Set.
func (f *fake[S, C]) Current() []S {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sets) == 0 {
		return nil
	}
	return f.sets[len(f.sets)-1]
}

// SetCounters says what Counters answers.
func (f *fake[S, C]) SetCounters(c C) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counters = c
}

// Fail makes every later Set fail with err; nil ends that.
func (f *fake[S, C]) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// Closed tells whether Close was called, and with which keep.
func (f *fake[S, C]) Closed() (closed, kept bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed, f.kept
}
