package agent

import "time"

// keep puts on disk what is not there yet. What cannot be written is tried again: an older allocation in its place would serve
// the wrong users after a restart without a bus.
func (l *Loop) keep() {
	var failed error
	for name, a := range l.unkept {
		if err := l.shelf.Keep(name, a); err != nil {
			failed = err
			continue
		}
		delete(l.unkept, name)
	}
	switch {
	case failed == nil && !l.keepAt.IsZero():
		l.keepAt = time.Time{}
		l.cfg.Log.Info("allocations are kept again")
	case failed != nil:
		if l.keepAt.IsZero() {
			l.cfg.Log.Error("allocation is executed, but a restart without a bus would not know it; trying again", "err", failed)
		}
		l.keepAt = time.Now().Add(retryAfter)
	}
}
