package service

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

const (
	retrySoon  = time.Second
	retryLater = time.Minute
)

// kernelState is how the kernel's tables stand to what is wanted.
type kernelState struct {
	left      kernel.State          // of the process before, until its FECs have had time to claim it
	recovered time.Time             // when that is; zero: nothing is left
	held      map[netip.Prefix]bool // FECs that go on as left, until their peers are back
	synced    bool                  // the first routes have come
	wrong     bool                  // the tables have to be looked at as a whole
	retry     time.Time             // and when, after a failure; zero: at once
	backoff   time.Duration
	warned    time.Time
	bare      time.Time                 // when routes that outdo labels were warned of
	failure   atomic.Pointer[wrongness] // of the last attempt to bring all in; nil: none
}

type wrongness struct{ error }

func (k *kernelState) fail(err error) {
	if err == nil {
		k.failure.Store(nil)
		return
	}
	k.failure.Store(&wrongness{err})
}

// State implements daemon.Stater.
func (s *Service) State() string {
	if failure := s.kernel.failure.Load(); failure != nil {
		return "does not forward as it should: " + failure.Error()
	}
	return ""
}

// recovery is how long what was left will be kept.
func (k *kernelState) recovery(now time.Time) time.Duration {
	if k.recovered.IsZero() {
		return 0
	}
	return k.recovered.Sub(now).Truncate(time.Millisecond)
}

// warn tells of an error, seldom.
func (k *kernelState) warn(log *slog.Logger, now time.Time, err error) {
	if k.warned.IsZero() || now.Sub(k.warned) >= retryLater {
		log.Error("forwarding", "err", err)
		k.warned = now
	}
}

// restore takes over what a process before has left in the kernel (RFC 3478).
func (s *Service) restore(now time.Time) error {
	left, err := s.Kernel.Entries()
	if err != nil {
		return err
	}
	had := maps.Clone(s.Journal.Labels())
	maps.DeleteFunc(had, func(_ netip.Prefix, l wire.Label) bool { _, there := left.Labels[uint32(l)]; return !there })
	if len(left.Labels)+len(left.Prefixes) == 0 || s.Config.Restart.Recovery == 0 {
		return nil
	}
	s.kernel.left, s.kernel.recovered, s.kernel.held = left, now.Add(s.Config.Restart.Recovery), map[netip.Prefix]bool{}
	s.Log.Info("labels of the last run are kept", "labels", len(left.Labels), "of_fecs", len(had), "prefixes", len(left.Prefixes), "for", s.Config.Restart.Recovery)
	s.distribute(now, s.labels.Restore(now, had, s.Config.Restart.Recovery))
	return nil
}

// install brings the change into the kernel, or all of it where that is due.
func (s *Service) install(now time.Time, b batch) {
	k := &s.kernel
	if b.recovered {
		for p := range k.held {
			b.change(p)
		}
		k.left, k.recovered, k.held, k.wrong = kernel.State{}, time.Time{}, nil, true
	}
	changes := s.tables.Update(s.look(b.changed))
	s.noteOutdone(now, b.changed)
	var err error
	switch {
	case !k.synced:
		return
	case k.wrong && !now.Before(k.retry):
		k.wrong, k.retry = false, time.Time{}
		err = s.Kernel.Set(s.wanted())
	case len(changes.Labels)+len(changes.Prefixes) > 0:
		err = s.Kernel.Update(changes)
	default:
		return
	}
	s.installed(now, err)
}

// look returns what is to be known of FECs that have changed, and those that are none any more. Those that a process before had
// forwarded, and whose peers are not back with their labels, go on as they were.
func (s *Service) look(changed map[netip.Prefix]bool) (views []labels.View, gone []netip.Prefix) {
	for p := range changed {
		v, ok := s.labels.View(p)
		switch {
		case !ok:
			gone = append(gone, p)
		case s.kernel.hasLeft(v) && !complete(v):
			s.kernel.held[p] = true
			continue
		default:
			v.Plain = s.plain[p]
			views = append(views, v)
		}
		delete(s.kernel.held, p)
	}
	return views, gone
}

func (k *kernelState) hasLeft(v labels.View) bool {
	_, label := k.left.Labels[uint32(v.Local)]
	_, prefix := k.left.Prefixes[v.FEC]
	return label || prefix
}

// complete says that each next hop has told its label.
func complete(v labels.View) bool {
	return !slices.ContainsFunc(v.Hops, func(h labels.Hop) bool { return h.Label == labels.NoLabel }) || v.Kind != labels.Transit
}

func (s *Service) installed(now time.Time, err error) {
	k := &s.kernel
	if err != nil {
		k.backoff = min(max(2*k.backoff, retrySoon), retryLater)
		k.wrong, k.retry = true, now.Add(k.backoff)
		k.fail(err)
		k.warn(s.Log, now, err)
		return
	}
	k.backoff = 0
	if !k.wrong {
		k.fail(nil)
	}
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}

// wanted is all that the kernel is to have. What is left from before stays where nobody has said otherwise yet.
func (s *Service) wanted() kernel.State {
	state := s.tables.State()
	for _, l := range s.links {
		state.Interfaces = append(state.Interfaces, l.Name)
	}
	if len(s.kernel.left.Labels)+len(s.kernel.left.Prefixes) == 0 {
		return state
	}
	state.Labels, state.Prefixes = maps.Clone(state.Labels), maps.Clone(state.Prefixes)
	for label, hops := range s.kernel.left.Labels {
		if _, ok := state.Labels[label]; !ok {
			state.Labels[label] = hops
		}
	}
	for p, hops := range s.kernel.left.Prefixes {
		if _, ok := state.Prefixes[p]; !ok {
			state.Prefixes[p] = hops
		}
	}
	return state
}
