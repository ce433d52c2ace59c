package service

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/igmp"
)

func TestInterfaceGoesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRouter(t, t.TempDir(), nil)
		defer r.stop()
		r.receiveMessage(server, igmp.V2Report{Group: public})
		set := func(up bool) {
			r.net.mu.Lock()
			r.net.ports[0].Up = up
			r.net.mu.Unlock()
			r.net.changed <- struct{}{}
			synctest.Wait()
		}
		set(false)
		if len(r.fwd.Last().Public) != 0 {
			t.Fatal("members of a port that is down stay")
		}
		r.net.take()
		set(true)
		if out := r.net.take(); len(out) != 1 || out[0].to != allSystems {
			t.Fatalf("sent %+v, want a query at once", out)
		}
	})
}

// The members are the same, but forwarding refers to an interface that is no more.
func TestInterfaceMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRouter(t, t.TempDir(), nil)
		defer r.stop()
		before := len(r.fwd.States())
		tell := func(change func()) {
			r.net.mu.Lock()
			change()
			r.net.mu.Unlock()
			r.net.changed <- struct{}{}
			synctest.Wait()
		}
		tell(func() {})
		if n := len(r.fwd.States()) - before; n != 0 {
			t.Errorf("%d new states though nothing has changed", n)
		}
		for name, change := range map[string]func(){
			"index":    func() { r.net.ports[0].Index = 9 },
			"hardware": func() { r.net.ports[0].Hardware = "02:00:00:00:00:09" },
		} {
			before := len(r.fwd.States())
			if tell(change); len(r.fwd.States()) == before {
				t.Errorf("%s: forwarding stays with the former interface", name)
			}
		}
	})
}

func TestInterfacesThatCannotBeReadStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRouter(t, t.TempDir(), nil)
		defer r.stop()
		r.receiveMessage(server, igmp.V2Report{Group: public})
		set := func(err error, up bool) {
			r.net.mu.Lock()
			defer r.net.mu.Unlock()
			r.net.err, r.net.ports[0].Up = err, up
		}
		set(errors.New("dump interrupted"), false)
		r.net.changed <- struct{}{}
		synctest.Wait()
		if len(r.fwd.Last().Public) == 0 {
			t.Fatal("members are gone because the interfaces could not be read")
		}
		set(nil, false)
		time.Sleep(housekeeping) // nobody tells of another change
		synctest.Wait()
		if len(r.fwd.Last().Public) != 0 {
			t.Fatal("the interfaces are not read again")
		}
	})
}
