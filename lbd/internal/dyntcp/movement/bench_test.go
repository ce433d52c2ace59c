package movement_test

import (
	"testing"

	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// BenchmarkRefused is what one message of a flood costs the user's host when BPF has let it pass: all but the signature is cheap, and
// signatures are rationed.
func BenchmarkRefused(b *testing.B) {
	stale, cookie := change(1, s1, s2), change(2, s2, s3)
	cookie.Cookie[7]++
	for _, c := range []struct {
		name   string
		change wire.Change
		seed   byte
		limits movement.FollowerLimits
	}{
		{"wrong cookie", cookie, 1, movement.FollowerLimits{}},
		{"stale", stale, 1, movement.FollowerLimits{}},
		{"too many", change(2, s2, s3), 2, movement.FollowerLimits{Each: 1, All: 1}},
		{"bad signature", change(2, s2, s3), 2, movement.FollowerLimits{Each: 1 << 30, All: 1 << 30}},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := newFollower(b, c.limits)
			f.Received(start, sign(b, change(1, s1, s2), 1))
			raw := sign(b, c.change, c.seed)
			for b.Loop() {
				if _, why := verdict(f.Received(start, raw)); why == 0 {
					b.Fatal("followed")
				}
			}
		})
	}
}
