package steering

import (
	"fmt"
	"testing"
	"time"
)

// Of a reactive binding a router steers all users while a director says it there, and else those that are active.
func TestWhomAReactiveBindingSteers(t *testing.T) {
	r := newRig(t)
	all := func(when string, actions []Action, want string) {
		t.Helper()
		got := ""
		for _, a := range actions {
			if a, ok := a.(Steer); ok {
				got += fmt.Sprintf("%v all %v ", a.Allocation.Epoch, a.All)
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	put := func(when string, from Router, b Binding, want string) {
		t.Helper()
		actions, err := r.Put(r.now, from, b)
		if err != nil {
			t.Fatal(err)
		}
		all(when, actions, want)
	}
	one := binding(d1, 1, 1)
	one.Reactive = true
	put("told", d1, one, "1.1 all false ")
	own := binding(self, 1, 1)
	own.Reactive = true
	put("said here, too", self, own, "1.1 all true ")
	two := binding(d1, 2, 2)
	two.Reactive = true
	put("who says it here is behind", d1, two, "1.2 all true ")
	r.now = r.now.Add(20 * time.Second)
	put("told again", d1, two, "")
	r.now = r.now.Add(70 * time.Second)
	all("the director here is gone", r.Tick(r.now), "1.2 all false ")
	put("proactive", d1, binding(d1, 3, 3), "1.3 all true ")
}

// Who has told a reactive binding may say who is active, and nobody else.
func TestMayActivate(t *testing.T) {
	r := newRig(t)
	one := binding(d1, 1, 1)
	if r.MayActivate(d1, "web") {
		t.Error("before there is any binding")
	}
	r.put(d1, one, "steer 1.1 of 10.0.0.11, tell 1.1")
	if r.MayActivate(d1, "web") {
		t.Error("of a binding that is not reactive")
	}
	one.Sequence, one.Reactive = 2, true
	r.put(d1, one, "steer 1.1 of 10.0.0.11, tell 1.1")
	if !r.MayActivate(d1, "web") || r.MayActivate(core, "web") || r.MayActivate(d1, "mail") {
		t.Error("who told it may, of that service; others may not")
	}
	r.Lost(r.now, d1)
	if r.MayActivate(d1, "web") {
		t.Error("whose session is down")
	}
}
