package serving

import (
	"time"

	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
)

// follows are flows that have left, and since when, in that order.
type follows struct {
	since map[kernel.Flow]time.Time
	order []left
}

type left struct {
	flow kernel.Flow
	at   time.Time
}

func newFollows() follows { return follows{since: map[kernel.Flow]time.Time{}} }

// add returns those that are too many with it.
func (f *follows) add(now time.Time, flow kernel.Flow) []kernel.Flow {
	f.since[flow] = now
	f.order = append(f.order, left{flow, now})
	return f.drop(func(l left) bool { return len(f.since) > followsMax || len(f.order) > 2*followsMax })
}

// remove reports whether the flow was one of them.
func (f *follows) remove(flow kernel.Flow) bool {
	_, was := f.since[flow]
	delete(f.since, flow)
	return was
}

// latest is when the last one of them left; zero: none is left.
func (f *follows) latest() time.Time {
	for i := len(f.order) - 1; i >= 0; i-- {
		if l := f.order[i]; f.since[l.flow].Equal(l.at) {
			return l.at
		}
	}
	return time.Time{}
}

// over returns those that left long ago.
func (f *follows) over(now time.Time) []kernel.Flow {
	return f.drop(func(l left) bool { return now.Sub(l.at) >= followFor })
}

// drop takes from the front what is to go; flows that have come back, or left once more since, are no more there.
func (f *follows) drop(goes func(left) bool) (out []kernel.Flow) {
	for len(f.order) > 0 && goes(f.order[0]) {
		l := f.order[0]
		f.order = f.order[1:]
		if f.since[l.flow].Equal(l.at) {
			delete(f.since, l.flow)
			out = append(out, l.flow)
		}
	}
	return out
}
