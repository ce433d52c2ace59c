package labels

import (
	"maps"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Reserve tells which labels others have entries for, all of them: they are given to no FEC. A FEC that has one gets another label.
func (l *Labels) Reserve(now time.Time, all []wire.Label) []Action {
	l.now = now
	before, taken := l.foreign, false
	l.foreign = map[wire.Label]bool{}
	for _, label := range all {
		l.foreign[label] = true
		if !before[label] && !l.allocator.take(label) {
			taken = true
		}
	}
	if taken {
		for _, f := range l.sorted() {
			if l.foreign[f.local] {
				l.change(f)
				l.settle(f)
			}
		}
	}
	for label := range before {
		if !l.foreign[label] && !l.isUsed(label) {
			l.allocator.release(label)
		}
	}
	return l.take()
}

// isUsed says whether a FEC or a peer has a label.
func (l *Labels) isUsed(label wire.Label) bool {
	for _, f := range l.fecs {
		if f.local == label || slices.ContainsFunc(f.sent, func(s sent) bool { return s.label == label }) {
			return true
		}
	}
	return slices.Contains(l.unclaimed, label) || slices.Contains(slices.Collect(maps.Values(l.restored)), label)
}

func highest(a, b wire.Label) wire.Label {
	if a == NoLabel {
		return b
	}
	return max(a, b)
}
