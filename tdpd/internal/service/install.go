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
	left      left      // of the process before, until its FECs have had time to claim it
	recovered time.Time // when that is; zero: nothing is left
	synced    bool      // the first routes have come
	wrong     bool      // the tables have to be looked at as a whole
	retry     time.Time // and when, after a failure; zero: at once
	backoff   time.Duration
	warned    time.Time
	bare      time.Time                 // when routes that outdo labels were warned of
	bird      time.Time                 // when routes that will go were warned of
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

// restore takes over what a process before has left in the kernel (RFC 3478), and the labels that peers may still have of it.
func (s *Service) restore(now time.Time) error {
	entries, err := s.Kernel.Entries()
	if err != nil {
		return err
	}
	if err := s.avoid(now); err != nil {
		return err
	}
	left, recovery := newLeft(entries, s.Journal.Labels()), s.Config.Restart.Recovery
	if recovery > 0 && len(entries.Labels)+len(entries.Prefixes) > 0 {
		s.kernel.left, s.kernel.recovered = left, now.Add(recovery)
		s.Log.Info("labels of the last run are kept", "labels", len(entries.Labels), "of_fecs", len(left.label), "prefixes", len(entries.Prefixes), "for", recovery)
	}
	s.distribute(now, s.labels.Restore(now, left.label, left.others(), recovery))
	return nil
}

// avoid has no FEC have a label that somebody else has an entry for.
func (s *Service) avoid(now time.Time) error {
	others, err := s.Kernel.Others()
	if err != nil {
		return err
	}
	all := make([]wire.Label, len(others))
	for i, label := range others {
		all[i] = wire.Label(label)
	}
	s.distribute(now, s.labels.Reserve(now, all))
	return nil
}

// meddled follows changes that others have made to the kernel's tables.
func (s *Service) meddled(now time.Time) {
	s.kernel.wrong, s.kernel.retry = true, time.Time{} // what failed may not any more
	if err := s.avoid(now); err != nil {
		s.kernel.warn(s.Log, now, err)
	}
}

// install brings the change into the kernel, or all of it where that is due.
func (s *Service) install(now time.Time, b batch) {
	k := &s.kernel
	if b.recovered {
		for _, p := range k.left.waiting() {
			b.change(p)
		}
		k.left, k.recovered, k.wrong = left{}, time.Time{}, true
	}
	changes := s.change(b.changed)
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

// change computes anew what FECs want in the kernel, and returns what is to be changed there.
func (s *Service) change(changed map[netip.Prefix]bool) kernel.Changes {
	var views []labels.View
	var none []netip.Prefix
	gone := kernel.Changes{Labels: map[uint32][]kernel.Hop{}, Prefixes: map[netip.Prefix][]kernel.Hop{}}
	for p := range changed {
		v, ok := s.viewOf(p)
		if !ok && !s.kernel.synced {
			continue // nothing is known of routes yet
		}
		s.kernel.left.claim(p, &gone)
		if !ok {
			s.kernel.left.forget(p)
			none = append(none, p)
			continue
		}
		s.kernel.left.fill(&v)
		v.Plain = s.plain[p]
		views = append(views, v)
	}
	changes := s.tables.Update(views, none)
	maps.Copy(gone.Labels, changes.Labels) // these were not in the tables: what they have of them now is new
	maps.Copy(gone.Prefixes, changes.Prefixes)
	return gone
}

func (s *Service) installed(now time.Time, err error) {
	k := &s.kernel
	if err != nil {
		if k.wrong = true; !k.retry.After(now) { // what was to be tried again is not put off
			k.backoff = min(max(2*k.backoff, retrySoon), retryLater)
			k.retry = now.Add(k.backoff)
		}
		k.fail(err)
		k.warn(s.Log, now, err)
		if kernel.LabelsTaken(err) {
			if err := s.avoid(now); err != nil {
				k.warn(s.Log, now, err)
			}
		}
		return
	}
	if k.wrong {
		return // it was only some of what is to be done
	}
	k.backoff = 0
	k.fail(nil)
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}

// wanted is all that the kernel is to have. What is left from before stays where nobody has said otherwise yet.
func (s *Service) wanted() kernel.State {
	state := s.tables.State()
	state.Interfaces = slices.Sorted(maps.Keys(s.inputs))
	s.kernel.left.into(&state)
	return state
}
