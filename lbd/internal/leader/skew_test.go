package leader_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/bus"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"

	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/store"
)

// older is what an agent sees of the bucket of allocations whose release knows nothing of fixed portions.
type older struct{ store.Bucket }

func (o older) Watch(ctx context.Context) <-chan bus.Entry {
	out := make(chan bus.Entry)
	go func() {
		defer close(out)
		for e := range o.Bucket.Watch(ctx) {
			var p allocv1.State
			if proto.Unmarshal(e.Value, &p) == nil {
				for _, a := range []*allocv1.Allocation{p.GetCommitted(), p.GetPrepared()} {
					if a != nil {
						a.Fixed = nil
					}
				}
				e.Value, _ = proto.Marshal(&p)
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// deafTo is an announcer that does not understand allocations with fixed portions, as the one on the bus and that of the channel do not.
type deafTo struct{ announce.Announcer }

func (d deafTo) Listen(handle func(announce.Message)) (func(), error) {
	return d.Announcer.Listen(func(m announce.Message) {
		switch m := m.(type) {
		case announce.Announce:
			if len(m.Allocation.Fixed)+len(m.Previous.Fixed) > 0 {
				return
			}
		case announce.Commit:
			if len(m.Allocation.Fixed) > 0 {
				return
			}
		}
		handle(m)
	})
}

// TestOlderAgentServesNothingThatItDoesNotUnderstand: an agent whose release does not know fixed portions has its users until there are
// some. Then the others take them, at the next epoch, and it takes nobody: it cannot know whom. Without fixed portions all is as before.
func TestOlderAgentServesNothingThatItDoesNotUnderstand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1)
		c.older = true
		c.server("s3", 1, true)
		c.wait(3 * time.Second)
		c.connect()
		if got := c.shares("s1", "s2", "s3"); got["s3"] < 85 {
			t.Fatalf("shares %v", got)
		}
		c.apply("policy: equal\nprefixes: [{prefix: 10.1.0.0/28, servers: [s2]}]")
		c.wait(2 * time.Second)
		if got := c.shares("s1", "s2", "s3"); got["s3"] != 0 || got["s1"]+got["s2"] != 256 {
			t.Errorf("shares with fixed portions %v", got)
		}
		for i := range 16 {
			if owner := c.owner(userOf(i)); owner != "s2" {
				t.Errorf("user %d of the prefix is at %q", i, owner)
			}
		}
		if n := len(c.agents["s3"].conns.users); n != 0 {
			t.Errorf("%d connections are left at s3", n)
		}
		c.wait(time.Minute) // the leader asks s3 now and then, in vain
		if got := c.shares("s1", "s2", "s3"); got["s3"] != 0 {
			t.Errorf("shares a minute later %v", got)
		}
		for _, m := range c.history()[1:] {
			if m.Reason == "s3 joined" {
				t.Errorf("move %v", m)
			}
		}
		c.apply("policy: equal")
		c.wait(15 * time.Second)
		if got := c.shares("s1", "s2", "s3"); got["s3"] < 85 {
			t.Errorf("shares without fixed portions %v", got)
		}
		c.end(stop)
	})
}
