// Package damping keeps out for a while what fails again and again. It is pure.
package damping

import "time"

// Damper counts failures: each doubles the time out, and each quiet Forget takes one back. The zero Times are not for use.
type Damper struct {
	First  time.Duration // out after the first failure
	Max    time.Duration // the longest time out
	Forget time.Duration // without failure, for one of them to be forgotten

	count int
	last  time.Time // failure, moved on by what was forgotten since
	until time.Time
}

// Fail counts a failure and returns until when it keeps out.
func (d *Damper) Fail(now time.Time) time.Time {
	d.forget(now)
	out := d.Max
	if d.count < 20 { // 2^20 times anything sensible is more than Max
		out = min(d.Max, d.First<<d.count)
	}
	d.count, d.last, d.until = d.count+1, now, now.Add(out)
	return d.until
}

// Until returns until when the last failure keeps out; zero: it does not any more.
func (d *Damper) Until(now time.Time) time.Time {
	if !now.Before(d.until) {
		return time.Time{}
	}
	return d.until
}

// Count returns the failures that are remembered.
func (d *Damper) Count(now time.Time) int {
	d.forget(now)
	return d.count
}

func (d *Damper) forget(now time.Time) {
	for d.count > 0 && now.Sub(d.last) >= d.Forget {
		d.count, d.last = d.count-1, d.last.Add(d.Forget)
	}
}
