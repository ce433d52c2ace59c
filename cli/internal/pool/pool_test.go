package pool

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
)

func member(name string, weight int) Server {
	return Server{Service: "web", Name: name, Registered: true, Healthy: true, Weight: weight}
}

func web(servers ...Server) *Service {
	return &Service{
		Spec:    service.Service{Name: "web", Policy: alloc.Weighted, Slots: alloc.Slots{By: alloc.Suffix, Bits: 4}},
		Servers: servers,
	}
}

func TestHealth(t *testing.T) {
	for want, m := range map[string]Server{
		"healthy":   {Registered: true, Healthy: true, Age: DeadAfter},
		"unhealthy": {Registered: true},
		"silent":    {Registered: true, Healthy: true, Age: DeadAfter + 1},
		"absent":    {},
		"unknown":   {Static: true},

		"dampened until 12:30:05Z": {Registered: true, Healthy: true, Dampened: time.Date(2026, 5, 1, 12, 30, 5, 0, time.UTC)},
	} {
		if got := m.Health(); got != want {
			t.Errorf("%+v is %s, want %s", m, got, want)
		}
	}
}

func TestSettled(t *testing.T) {
	svc := web(member("s1", 1), member("s2", 1))
	if svc.Settled() {
		t.Fatal("settled before the first allocation")
	}
	next, _, err := svc.Next()
	if err != nil || next.Epoch.Number != 1 {
		t.Fatal(next.Epoch, err)
	}
	svc.Prepared = next
	if svc.Settled() {
		t.Fatal("settled before the commit")
	}
	svc.Committed, svc.Prepared = next, alloc.Allocation{}
	svc.Committed.Epoch = epoch.Epoch{Term: 9, Number: 4}
	if !svc.Settled() {
		t.Fatal("not settled after the commit")
	}
	for what, m := range map[string]Server{
		"drained": {Registered: true, Healthy: true, Weight: 1, Drained: true}, "unhealthy": {Registered: true, Weight: 1},
		"silent": {Registered: true, Healthy: true, Weight: 1, Age: time.Minute}, "weight 0": {Registered: true, Healthy: true},
	} {
		m.Service, m.Name = "web", "s2"
		svc.Servers[1] = m
		if next, move, err := svc.Next(); svc.Settled() || err != nil || move.Gained["s1"] != 8 || next.Epoch.Number != 5 {
			t.Errorf("%s: epoch %v, %v, %v", what, next.Epoch, move, err)
		}
	}
	svc.Servers[0].Drained = true
	if _, _, err := svc.Next(); !svc.Settled() || !errors.Is(err, alloc.ErrNoServer) {
		t.Fatal("the leader has nothing to do when nobody may own anything")
	}
}

func TestErrorsListNames(t *testing.T) {
	snap := &Snapshot{}
	for i := range 30 {
		svc := web()
		svc.Spec.Name = "svc" + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		snap.Services = append(snap.Services, svc)
	}
	_, err := snap.Service("web")
	if !errors.Is(err, ErrNoSuch) || !strings.Contains(err.Error(), "svca, svcb") || !strings.Contains(err.Error(), "and 10 more") {
		t.Fatal(err)
	}
	if _, err := snap.Find("svca/s1"); !errors.Is(err, ErrNoSuch) || !strings.Contains(err.Error(), "lbd agent") {
		t.Fatal(err)
	}
}

func TestAge(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": -time.Second, "4s": 4900 * time.Millisecond, "3m12s": 192 * time.Second, "5h2m": 5*time.Hour + 2*time.Minute, "3d4h": 76 * time.Hour,
	} {
		if got := Age(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
