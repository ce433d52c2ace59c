package service

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// TestLongLivedStaleFECs: FECs of a neighbor that is away are kept over its restart, and beyond it for the long-lived time (RFC 9494), but for those that are not to
// be; then all go.
func TestLongLivedStaleFECs(t *testing.T) {
	inPeered(t, func(r *peered) {
		long, all := labelled(10, 500), labelled(15, 500)
		short := maps.Clone(all)
		maps.DeleteFunc(short, func(p netip.Prefix, _ uint32) bool { _, is := long[p]; return is })
		r.tells(long)
		r.tells(short, bgp.NoLLGR)
		r.want(time.Second, all, "told")
		r.session(bgp.Idle)
		r.want(keeps-time.Second, all, "within the restart time")
		r.want(2*time.Second, long, "beyond it")
		r.want(keepsLong-2*time.Second, long, "within the long-lived time")
		r.want(2*time.Second, nil, "beyond that")
		r.session(bgp.Established)
		r.tells(all)
		r.want(time.Second, all, "it is back")
	})
}

// TestFECsOverFlaps: a session flaps 30 times, within its restart time. What the neighbor tells again, before it goes the next time, is never away; what it does not
// tell again goes, whether the speaker says so, or time does, or the next flap.
func TestFECsOverFlaps(t *testing.T) {
	inPeered(t, func(r *peered) {
		const n, flaps = 12, 30
		has := labelled(n, 100)
		r.tells(has)
		r.want(time.Second, has, "told")
		for i := range flaps {
			r.session(bgp.Idle)
			r.want(time.Duration(1+i%5)*time.Second, has, "away")
			r.session(bgp.Established)
			fewer := labelled(n, uint32(1000+100*i))
			lost := nth(i % n)
			delete(fewer, lost)
			switch i % 3 {
			case 0: // End-of-RIB
				r.tells(fewer)
				r.loses(lost)
				r.want(time.Second, fewer, "told again, and one lost")
			case 1: // no End-of-RIB
				r.tells(fewer)
				has = maps.Clone(has)
				maps.Copy(has, fewer)
				r.want(keeps-time.Second, has, "one not told again, with time left")
				r.want(2*time.Second, fewer, "and without")
			case 2: // it goes once more
				r.tells(fewer)
				r.session(bgp.Idle)
				r.want(time.Second, fewer, "one not told again before it goes once more")
				r.session(bgp.Established)
			}
			has = labelled(n, uint32(5000+100*i))
			r.tells(has)
			r.want(time.Second, has, "all told again")
		}
		r.session(bgp.Idle)
		r.want(keeps+keepsLong+time.Second, nil, "gone for good")
	})
}
