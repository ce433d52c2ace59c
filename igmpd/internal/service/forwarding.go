package service

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/manycast/manycast/igmpd/internal/kernel"
)

const (
	forwardRetry = time.Second
	secureEvery  = time.Second
)

// state is what the kernel should forward.
func (s *Service) state(now time.Time) kernel.State {
	in := s.inPorts()
	st := kernel.State{Private: make(map[netip.Addr]kernel.Private)}
	for _, i := range s.Config.Interfaces {
		st.Interfaces = append(st.Interfaces, kernel.Interface{Name: i.Name, Users: i.Users, Members: i.Members})
	}
	for g, p := range s.table.Private() {
		if g == s.control.group {
			continue // a snapshot from before it became one
		}
		st.Private[g] = kernel.Private{Plan: p.Plan, Owners: p.Owners, In: in}
	}
	for _, r := range s.table.Public(now) {
		st.Public = append(st.Public, kernel.Route{Group: r.Group, Source: r.Source, In: in, Out: r.Out})
	}
	st.Public = append(st.Public, s.controlRoutes()...)
	return st
}

// runForwarder brings the newest state into the kernel, and tries again what failed.
func (s *Service) runForwarder(ctx context.Context) {
	var st kernel.State
	var retry <-chan time.Time
	secure := time.NewTicker(secureEvery)
	defer secure.Stop()
	var insecure forwardError
	for {
		select {
		case <-s.turns[1]:
			continue
		case <-secure.C:
			if err := s.Forwarder.Secure(); insecure.set(err) {
				s.Log.Warn("forwarding would not outlive this process", "err", err)
			}
			continue
		case st = <-s.forward.c:
		case <-retry:
		case <-ctx.Done():
			return
		}
		retry = nil
		err := s.Forwarder.Set(st)
		if s.forwardOK.set(err) {
			s.Log.Error("forwarding state is not complete; trying again", "err", err)
		}
		if err != nil {
			retry = time.After(forwardRetry)
			continue
		}
		s.serves()
	}
}

// forwardError keeps the last attempt's error for the status.
type forwardError struct {
	mu  sync.Mutex
	err error
}

// set notes an error and tells whether it is another one than before.
func (f *forwardError) set(err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	other := err != nil && (f.err == nil || f.err.Error() != err.Error())
	f.err = err
	return other
}

func (f *forwardError) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		return ""
	}
	return f.err.Error()
}
